from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from r3cnn.cli.outcome import ERROR_PICTURES, keep_evaluated, remove_evaluation, remove_outcome, remove_score
from r3cnn.reporting import error_figures


def test_the_evaluated_checkpoint_replaces_an_earlier_one(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / f"{text}.ckpt").write_text(text)
        keep_evaluated(tmp_path / f"{text}.ckpt", tmp_path)
        assert (tmp_path / "checkpoints" / "evaluated.ckpt").read_text() == text
    assert (tmp_path / "first.ckpt").read_text() == "first"


def test_the_evaluated_checkpoint_may_be_the_one_that_was_kept(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_text("best")
    for _ in range(2):
        keep_evaluated(tmp_path / "best.ckpt", tmp_path)
    kept = tmp_path / "checkpoints" / "evaluated.ckpt"
    keep_evaluated(kept, tmp_path)
    assert kept.read_text() == "best"


def test_without_links_the_evaluated_checkpoint_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "best.ckpt").write_text("best")
    keep_evaluated(tmp_path / "best.ckpt", tmp_path)
    kept = tmp_path / "checkpoints" / "evaluated.ckpt"
    assert kept.read_text() == "best"
    assert not kept.samefile(tmp_path / "best.ckpt")


OF_EVALUATION = (
    "metrics.json",
    "detections.json",
    "detections_loop2.json",
    "image_ids.json",
    "roi_statistics.json",
    "pictures/roi_statistics.png",
    "pictures/7_predictions.png",
    "pictures/7_loops.png",
    "errors/errors.json",
    "errors/confusion_mask.png",
)
OF_TRAINING = ("roi_statistics_train.json", "pictures/training_curves.png", "checkpoints/best.ckpt")
FOREIGN = ("notes.json", "pictures/cat.png", "errors/mine.png")


def left_after(remove: Callable[[Path], None], folder: Path) -> set[str]:
    for name in (*OF_EVALUATION, *OF_TRAINING, *FOREIGN):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    remove(folder)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_new_evaluation_removes_the_earlier_one_but_neither_training_nor_foreign_files(tmp_path: Path) -> None:
    assert left_after(remove_evaluation, tmp_path) == {*OF_TRAINING, *FOREIGN}


def test_a_new_training_removes_the_earlier_one_and_its_evaluation_but_no_foreign_files(tmp_path: Path) -> None:
    assert left_after(remove_outcome, tmp_path) == set(FOREIGN)


@pytest.mark.parametrize(("resume", "kept"), [("last", set()), ("evaluated", {"checkpoints/evaluated.ckpt"})])
def test_a_resumed_training_removes_the_evaluation_of_its_earlier_part_alone(
    tmp_path: Path, resume: str, kept: set[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/evaluated.ckpt").touch()
    checkpoint = tmp_path / "checkpoints" / f"{resume}.ckpt"
    left = left_after(lambda folder: remove_score(folder, checkpoint), tmp_path)
    assert left == {*OF_TRAINING, *FOREIGN, *kept}


def test_all_pictures_of_the_error_analysis_are_known_for_removal() -> None:
    drawn = set(re.findall(r"\w+(?:\{kind\})?\.png", inspect.getsource(error_figures)))
    assert {name.format(kind=kind) for name in drawn for kind in ("box", "mask")} == set(ERROR_PICTURES)
