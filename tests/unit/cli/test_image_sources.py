from __future__ import annotations

import logging
from pathlib import Path

import pytest
import tiny
from omegaconf import OmegaConf
from PIL import Image

from r3cnn.cli.predict import image_files, names_of, predict, sources_of
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing
from r3cnn.training.predictor import Predictor


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(source: object, *, is_recursive: bool = False) -> list[str]:
    return names_of(image_files(source, is_recursive=is_recursive), sources_of(source))


def test_images_of_a_folder_are_taken_by_name_and_other_files_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "b.png", "a.JPG", "paper.pdf", "notes.txt", "._b.png", "video.mpeg", "deep/c.png")
    with caplog.at_level(logging.INFO):
        assert found(tmp_path) == ["a.JPG", "b.png"]
    assert "skipped 4 of 6 files" in caplog.text


def test_images_of_the_same_name_in_several_folders_keep_names_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "in/a/1.png", "in/b/1.png", "in/1.png", "other/1.png")
    assert found(tmp_path / "in", is_recursive=True) == ["1.png", "a/1.png", "b/1.png"]
    assert found([tmp_path / "in/a", str(tmp_path / "in/b")]) == ["a/1.png", "b/1.png"]
    assert found([tmp_path / "in/a/1.png", tmp_path / "other"]) == ["in/a/1.png", "other/1.png"]
    assert found([tmp_path / "in/a/1.png", tmp_path / "in/1.png"]) == ["a/1.png", "1.png"]
    assert found(tmp_path / "in/a/1.png") == ["1.png"]


def test_an_image_that_is_named_twice_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "1.png", "2.png")
    monkeypatch.chdir(tmp_path)
    assert found(["2.png", tmp_path, "./2.png"]) == ["2.png", "1.png"]


def test_pictures_that_were_drawn_below_the_folder_are_no_source(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "out/pictures/1.png.png", "out/2.png")
    paths = image_files(tmp_path, is_recursive=True, leave_out=tmp_path / "out/pictures")
    assert [path.name for path in paths] == ["1.png", "2.png"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "source=.*absent: no such image or folder"),
        (["1.png", "absent"], "source=.*absent: no such image or folder"),
        ("papers", "source=.*papers: the folder holds no image$"),
        (".", r"the folder holds no image; recursive=true takes the 1 in its sub-folders"),
        (None, "source=None: an image, a folder of images, or a list of them is needed"),
        ([], r"source=\[\]: an image, a folder"),
        ("", "source=: an image, a folder"),
    ],
)
def test_a_source_without_an_image_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: object, message: str
) -> None:
    touch(tmp_path, "papers/paper.pdf", "deep/1.png")
    if isinstance(source, list):
        touch(tmp_path, "1.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        image_files(source, is_recursive=False)


def test_a_name_with_a_line_break_is_one_line_of_the_log_whether_or_not_it_is_an_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = tmp_path / "image\n12:00:00 INFO all is well.png"
    Image.new("RGB", (96, 64)).save(image)
    text = image.with_name("text\n12:00:00 INFO all is well.png")
    text.write_text("text")
    network = tiny.model(tiny.schedule())
    names = tuple(map(str, range(network.num_classes)))
    size = Preprocessing([0, 0, 0], [1, 1, 1], (64, 96))
    predictor = Predictor(network, CheckpointInfo({}, {}, names, tuple(range(len(names))), size), "cpu")
    config = OmegaConf.create({"source": str(tmp_path), "pictures": 1, "score_threshold": 0.5})
    with caplog.at_level(logging.INFO):
        predict(config, predictor, [image, text], tmp_path / "out")
    said = [message for message in caplog.messages if str(tmp_path) in message]
    assert len(said) == 2
    assert not [message for message in caplog.messages if "\n" in message]
