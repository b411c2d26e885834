from __future__ import annotations

from pathlib import Path

import pytest

from r3cnn.cli.predict import image_files


def test_images_of_a_folder_are_those_that_can_be_read_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "paper.pdf", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path)] == ["a.JPG", "b.png"]


def test_a_folder_of_documents_holds_no_image(tmp_path: Path) -> None:
    (tmp_path / "paper.pdf").touch()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        image_files(tmp_path)
