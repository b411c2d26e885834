from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from r3cnn.cli.earlier_run import set_aside, settle_previous
from r3cnn.cli.outcome import (
    ERROR_PICTURES,
    checkpoint_files,
    evaluation_files,
    keep_evaluated,
    keep_training_config,
    run_files,
)
from r3cnn.reporting import errors as error_reports


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
OF_TRAINING = (
    "result.json",
    "metrics.csv",
    "config.yaml",
    "roi_statistics_train.json",
    "pictures/training_curves.png",
    "checkpoints/best.ckpt",
    "checkpoints/epoch3.ckpt",
)
FOREIGN = (
    "notes.json",
    "detections_loop_of_mine.json",
    "pictures/cat.png",
    "pictures/mine_predictions.png",
    "errors/mine.png",
    "checkpoints/mine.ckpt",
    "checkpoints/backup.ckpt",
)


@pytest.fixture
def used(tmp_path: Path) -> Path:
    for name in (*OF_EVALUATION, *OF_TRAINING, *FOREIGN):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "image_ids.json").write_text("[7]")
    folder = tmp_path / "checkpoints"
    kept = {str(folder / "epoch3.ckpt"): 0.5, f"{tmp_path}/elsewhere/mine.ckpt": 0.4}
    torch.save(
        {"callbacks": {"ModelCheckpoint": {"dirpath": str(folder), "best_k_models": kept}}}, folder / "best.ckpt"
    )
    return tmp_path


def names(files: Iterable[Path], folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in files if path.is_file()}


def test_files_of_an_evaluation_and_of_a_training_are_told_from_other_peoples(used: Path) -> None:
    assert names(evaluation_files(used), used) == set(OF_EVALUATION)
    assert names(run_files(used), used) == {*OF_EVALUATION, *OF_TRAINING}


@pytest.mark.parametrize("left", [b"", b"[7, 1", b"7", b"\xff\xfe"])
def test_a_folder_whose_image_ids_were_left_half_written_can_be_used_again(used: Path, left: bytes) -> None:
    (used / "image_ids.json").write_bytes(left)
    expected = {name for name in OF_EVALUATION if not name.startswith("pictures/7")}
    assert names(evaluation_files(used), used) == expected


@pytest.mark.parametrize("callbacks", [{"Theirs": [1], "Odd": {"best_k_models": {}}}, [], None])
def test_states_of_the_users_own_callbacks_hide_no_checkpoint(tmp_path: Path, callbacks: object) -> None:
    for name in ("last.ckpt", "best.ckpt", "epoch3.ckpt"):
        (tmp_path / name).touch()
    own = {"ModelCheckpoint": {"dirpath": str(tmp_path), "best_model_path": str(tmp_path / "epoch3.ckpt")}}
    torch.save({"callbacks": callbacks}, tmp_path / "last.ckpt")
    torch.save({"callbacks": {"Theirs": [1], **own}}, tmp_path / "best.ckpt")
    assert {path.name for path in checkpoint_files(tmp_path)} == {"last.ckpt", "best.ckpt", "epoch3.ckpt"}


@pytest.mark.parametrize("new", [None, "last.ckpt"])
def test_a_run_that_was_set_aside_comes_back_unless_the_new_one_has_a_checkpoint(used: Path, new: str | None) -> None:
    before = {path: path.read_bytes() for path in used.rglob("*") if path.is_file()}
    set_aside(used)
    assert names(used.glob("*"), used) | names(used.glob("[!p]*/*"), used) >= {"checkpoints/mine.ckpt", "notes.json"}
    assert not (used / "checkpoints/best.ckpt").exists()
    (used / "metrics.csv").write_text("of the new run")
    (used / "roi_statistics.json").write_text("of the new run")
    if new is not None:
        (used / "checkpoints" / new).write_text("of the new run")
    settle_previous(used)
    if new is None:
        assert {path: path.read_bytes() for path in used.rglob("*") if path.is_file()} == before
    else:
        ours = {"metrics.csv", "roi_statistics.json", "checkpoints/last.ckpt"}
        assert names(used.rglob("*"), used) == {*FOREIGN, *ours}


def test_all_pictures_of_the_error_analysis_are_known_for_removal() -> None:
    drawn = set(re.findall(r"\w+(?:\{kind\})?\.png", inspect.getsource(error_reports)))
    assert {name.format(kind=kind) for name in drawn for kind in ("box", "mask")} == set(ERROR_PICTURES)


def test_a_trainings_configuration_stays_though_it_was_edited_into_what_cannot_be_read(tmp_path: Path) -> None:
    config, kept = tmp_path / "config.yaml", tmp_path / "config_train.yaml"
    keep_training_config(tmp_path)
    config.write_text("resume: null\nnote: &n 1\n")
    keep_training_config(tmp_path)
    assert (config.exists(), kept.read_text()) == (False, "resume: null\nnote: &n 1\n")
    config.write_text("checkpoint: a.ckpt\nnote: &n 1\n")
    keep_training_config(tmp_path)
    assert (config.exists(), kept.read_text()) == (True, "resume: null\nnote: &n 1\n")
