"""Habits from Lightning: switches of its trainer, no logger, no validation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY_RUN, Cli, Train

SHAPES = ("data=shapes", "data.prepare.train=8", "data.prepare.val=3")


@pytest.fixture(scope="module")
def unvalidated(train_tiny: Train) -> Path:
    """A finished run on data without a validation set."""
    return train_tiny("data.val=null", "callbacks=ema", "pictures=2")


def without_ap(folder: Path) -> bool:
    """Whether a finished run says everywhere that its AP is not known."""
    metrics = json.loads((folder / "metrics.json").read_text())
    found = [metrics["box"], metrics["mask"], *(loop[kind] for loop in metrics["loops"].values() for kind in loop)]
    assert json.loads((folder / "result.json").read_text())["metrics"] == metrics
    assert list(metrics["loops"]) == ["1", "2", "3"]
    return all(value is None for figures in found for value in figures.values())


def test_training_without_validation_images_leaves_checkpoints_and_a_result_without_ap(unvalidated: Path) -> None:
    assert without_ap(unvalidated)
    weights = [torch.load(unvalidated / "checkpoints" / name, weights_only=True) for name in ("best.ckpt", "last.ckpt")]
    assert [content["global_step"] for content in weights] == [4, 4]
    assert not (unvalidated / "detections.json").exists()


def test_a_run_without_validation_is_reported_and_evaluated_on_other_images(
    unvalidated: Path, cli: Cli, tmp_path: Path
) -> None:
    cli("report", f"runs={unvalidated}", f"output_dir={tmp_path}/report")
    assert (tmp_path / "report" / "report.html").is_file()
    checkpoint = f"checkpoint={unvalidated}/checkpoints/best.ckpt"
    with pytest.raises(ValueError, match=r"data\.val is null, so there are no images to evaluate on: .* data="):
        cli("evaluate", checkpoint, f"output_dir={tmp_path}/own")
    with pytest.raises(FileNotFoundError, match=r"has no detections\.json: it was trained without validation"):
        cli("analyze", "errors", f"run={unvalidated}")
    cli("evaluate", checkpoint, *SHAPES, "pictures=0", f"output_dir={tmp_path}/other")
    assert json.loads((tmp_path / "other" / "metrics.json").read_text())["images"] == {"seen": 3, "total": 3}


def test_validation_may_be_switched_off(train_tiny: Train) -> None:
    folder = train_tiny("trainer.limit_val_batches=0", "trainer.max_steps=1", "pictures=1")
    assert without_ap(folder)
    assert list((folder / "pictures").glob("*_predictions.png"))  # there are images, though without a score


@pytest.mark.parametrize("nothing", ["logger=false", "logger=null", "~logger", "callbacks=null"])
def test_a_run_without_logger_or_callbacks_finishes(train_tiny: Train, nothing: str) -> None:
    folder = train_tiny(nothing, "trainer.max_steps=1", "pictures=0")
    assert json.loads((folder / "result.json").read_text())["metrics"]["images"]["seen"] == 3
    assert (folder / "metrics.csv").exists() == (nothing == "callbacks=null")


def test_switches_of_the_trainer_work_together(train_tiny: Train) -> None:
    folder = train_tiny(
        "+trainer.profiler=simple",  # as one writes for keys that are not there
        "trainer.enable_progress_bar=false",
        "trainer.enable_checkpointing=false",
        "trainer.num_sanity_val_steps=2",
        "trainer.detect_anomaly=true",
        "trainer.max_steps=1",
        "pictures=0",
    )
    assert "training_step" in (folder / "fit-profile.txt").read_text()
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("switch", ["fast_dev_run=true", "overfit_batches=2"])
def test_switches_of_the_trainer_ask_for_no_validation_where_there_is_none(train_tiny: Train, switch: str) -> None:
    folder = train_tiny("data.val=null", f"trainer.{switch}", "pictures=0", "callbacks=none")
    assert json.loads((folder / "metrics.json").read_text())["mask"]["ap"] is None
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]  # none of Lightning's own


def test_a_fast_dev_run_takes_one_step(train_tiny: Train) -> None:
    folder = train_tiny("trainer.fast_dev_run=true", "pictures=0")
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 1


def test_every_command_finishes_for_a_run_too_short_to_log_a_loss_and_images_without_an_object(
    cli: Cli, shapes_root: Path, tmp_path: Path
) -> None:
    content = json.loads((shapes_root / "annotations" / "instances_val.json").read_text())
    images = content["images"][:2]
    (tmp_path / "empty.json").write_text(json.dumps({**content, "images": images, "annotations": []}))
    run = tmp_path / "run"
    cli(
        "train",
        *(setting for setting in TINY_RUN if not setting.startswith("data.prepare")),
        "data=custom",
        f"data.root={shapes_root}",
        "data.train.images=train",
        "data.train.annotations=annotations/instances_train.json",
        "data.val.images=val",
        f"data.val.annotations={tmp_path}/empty.json",
        "trainer.log_every_n_steps=10",
        "trainer.max_steps=2",
        "model.roi_heads.detection.score_threshold=0.999",
        f"output_dir={run}",
    )
    assert without_ap(run)
    assert json.loads((run / "detections.json").read_text()) == []
    assert "train/loss" not in (run / "metrics.csv").read_text()
    assert not (run / "pictures" / "training_curves.png").exists()
    checkpoint = f"checkpoint={run}/checkpoints/best.ckpt"
    cli("evaluate", checkpoint, "pictures=1", "evaluation.recall_at=[10]", f"output_dir={tmp_path}/evaluated")
    assert json.loads((tmp_path / "evaluated" / "metrics.json").read_text())["mask"]["ap"] is None
    cli("predict", checkpoint, f"source={shapes_root}/val/{images[0]['file_name']}", f"output_dir={tmp_path}/found")
    assert json.loads((tmp_path / "found" / "detections.json").read_text()) == []
    cli("report", f"runs=[{run},{tmp_path}/evaluated]", f"output_dir={tmp_path}/report")
    cli("report", f"runs={run}", "table=all", f"output_dir={tmp_path}/tables")
    assert (tmp_path / "report" / "report.html").is_file()
    cli("analyze", "errors", f"run={run}")
    assert (run / "errors" / "errors.json").is_file()
    for split in ("train", "val"):
        cli("analyze", "rois", f"runs=[{run}]", f"split={split}", f"output_dir={tmp_path}/rois_{split}")
        assert (tmp_path / f"rois_{split}" / "roi_histograms.png").is_file()
