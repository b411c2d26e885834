from __future__ import annotations

from pathlib import Path

import pytest

from r3cnn.cli.evaluate import check_drawing_folder


def drawn_in(folder: Path) -> dict[str, object]:
    return {"prepare": {"_target_": "r3cnn.data.shapes.write_shapes", "folder": str(folder)}}


def test_a_checkpoint_draws_its_data_into_the_cache_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R3CNN_CACHE", str(tmp_path / "cache"))
    check_drawing_folder(drawn_in(tmp_path / "cache" / "shapes"))
    check_drawing_folder(drawn_in(tmp_path))
    check_drawing_folder({"prepare": None})
    for folder in (tmp_path / "elsewhere", tmp_path / "cache" / ".." / "elsewhere", tmp_path / "cachet" / "shapes"):
        with pytest.raises(ValueError, match="outside the cache"):
            check_drawing_folder(drawn_in(folder))
