"""What a training run leaves behind."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Timer
from omegaconf import OmegaConf
from PIL import Image
from tiny_runs import TINY_RUN, Cli, Train


@pytest.fixture(scope="module")
def short_run(train_tiny: Train) -> Path:
    """Ends by max_steps between two validations."""
    return train_tiny("trainer.max_steps=2", "trainer.val_check_interval=100")


def losses(folder: Path) -> list[str]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]


def test_a_run_ended_by_max_steps_writes_metrics_of_every_loop(short_run: Path) -> None:
    metrics = json.loads((short_run / "metrics.json").read_text())
    sizes = {"ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"}
    assert metrics["box"].keys() == metrics["mask"].keys() == sizes
    assert list(metrics["loops"]) == ["1", "2", "3"]
    assert metrics["loops"]["3"] == {"box": metrics["box"], "mask": metrics["mask"]}
    assert set(metrics["per_class"]) == {"circle", "square", "triangle"}
    assert metrics["images"] == {"seen": 3, "total": 3}


def test_a_run_ended_by_max_steps_writes_detections_in_the_files_ids(short_run: Path) -> None:
    config = OmegaConf.load(short_run / "config.yaml")
    content = json.loads((Path(config.data.root) / config.data.val.annotations).read_text())
    entries = json.loads((short_run / "detections.json").read_text())
    assert entries
    assert {entry["image_id"] for entry in entries} <= {image["id"] for image in content["images"]}
    assert {entry["category_id"] for entry in entries} <= {category["id"] for category in content["categories"]}
    assert {"bbox", "score", "segmentation"} <= entries[0].keys()


def test_the_written_configuration_is_resolved(short_run: Path) -> None:
    text = (short_run / "config.yaml").read_text()
    assert "${" not in text
    config = OmegaConf.load(short_run / "config.yaml")
    assert config.num_classes == 3
    assert config.output_dir == str(short_run)


def test_a_run_leaves_the_best_and_the_last_checkpoint_and_pictures(short_run: Path) -> None:
    assert sorted(path.name for path in (short_run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    pictures = sorted((short_run / "pictures").iterdir())
    assert [path.name.split("_", 1)[1] for path in pictures] == [
        "loops.png",
        "predictions.png",
        "statistics.png",
        "statistics_train.png",
        "curves.png",
    ]
    assert all(min(Image.open(path).size) > 60 for path in pictures)


def test_losses_are_logged_raw_and_weighted(short_run: Path) -> None:
    with (short_run / "metrics.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    keys = [
        "rpn/objectness",
        "rpn/box",
        *(f"loop{loop}/{name}" for loop in (1, 2, 3) for name in ("cls", "box", "mask")),
    ]
    total = sum(float(row[f"train/weighted/{key}"]) for key in keys)
    assert total == pytest.approx(float(row["train/loss"]), rel=1e-5)
    assert float(row["train/weighted/loop3/cls"]) == pytest.approx(0.5 * float(row["train/loop3/cls"]), rel=1e-5)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(short_run: Path, train_tiny: Train) -> None:
    again = train_tiny("trainer.max_steps=2", "trainer.val_check_interval=100")
    other = train_tiny("trainer.max_steps=2", "trainer.val_check_interval=100", "seed=1")
    assert losses(short_run) == losses(again)
    assert losses(short_run) != losses(other)


@pytest.mark.slow
def test_a_run_ended_by_max_time_is_evaluated(train_tiny: Train) -> None:
    folder = train_tiny("trainer.max_steps=-1", "trainer.max_time=00:00:00:01", "lr_schedule.unit=step")
    assert json.loads((folder / "metrics.json").read_text())["images"]["seen"] == 3
    step = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert step >= 1


def test_the_warm_up_ends_when_its_part_of_the_time_is_over(train_tiny: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Timer, "time_elapsed", lambda *_: 600.0)
    folder = train_tiny("trainer.max_steps=2", "trainer.max_time=00:01:00:00", "pictures=0")
    with (folder / "metrics.csv").open(newline="") as file:
        rates = [float(row["train/lr"]) for row in csv.DictReader(file) if row["train/lr"]]
    assert rates[0] == pytest.approx(0.004 * 3 / 16)


def test_the_checkpoint_holds_plain_containers_that_describe_the_network(short_run: Path) -> None:
    content = torch.load(short_run / "checkpoints/best.ckpt", weights_only=True)["r3cnn"]
    assert content["format"] == 2
    assert content["model"]["_target_"] == "r3cnn.detector.RCNN"
    assert content["classes"] == ["circle", "square", "triangle"]
    assert content["preprocessing"]["image_size"] == [64, 96]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(train_tiny: Train) -> None:
    with pytest.raises(FloatingPointError, match=r"not finite at step \d+.*image ids \["):
        train_tiny("optimizer.lr=1e30", "lr_schedule.warmup_steps=0", "trainer.max_steps=20")


@pytest.mark.slow
def test_both_loggers_at_once_write_a_table_and_an_offline_run(
    train_tiny: Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    folder = train_tiny("logger=csv_wandb", "trainer.max_steps=1", "pictures=0")
    assert len(losses(folder)) == 1
    assert list((folder / "wandb").glob("offline-run-*"))


@pytest.mark.slow
def test_accumulated_batches_step_once_and_scale_the_rate(train_tiny: Train, capfd: pytest.CaptureFixture[str]) -> None:
    folder = train_tiny("trainer.max_steps=1", "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0")
    assert "= 0.004 x 6/16 images per step" in capfd.readouterr().err
    assert torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 1


@pytest.mark.slow
def test_autocast_to_bf16_trains_with_finite_losses(train_tiny: Train) -> None:
    folder = train_tiny("trainer.precision=bf16-mixed", "trainer.max_steps=2", "pictures=0")
    assert all(math.isfinite(float(loss)) for loss in losses(folder))
    assert len(losses(folder)) == 2


def test_a_custom_data_set_takes_its_classes_from_the_training_annotations(
    short_run: Path, cli: Cli, tmp_path: Path
) -> None:
    data = OmegaConf.load(short_run / "config.yaml").data
    paths = [
        f"data.{split}.{kind}={Path(data.root) / data[split][kind]}"
        for split in ("train", "val")
        for kind in ("images", "annotations")
    ]
    settings = [setting for setting in TINY_RUN if not setting.startswith("data.prepare")]
    cli("train", *settings, "data=custom", *paths, "trainer.max_steps=1", "pictures=0", f"output_dir={tmp_path}")
    config = OmegaConf.load(tmp_path / "config.yaml")
    assert config.data.classes == ["circle", "square", "triangle"]
    assert config.num_classes == 3
    assert json.loads((tmp_path / "metrics.json").read_text())["images"]["seen"] == 3


@pytest.mark.slow
def test_a_log_file_gets_lines_with_the_step_and_the_time_left(train_tiny: Train) -> None:
    folder = train_tiny("trainer.max_steps=3", "callbacks.progress.seconds_between_lines=0", "pictures=0")
    lines = [line for line in (folder / "train.log").read_text().splitlines() if "loss" in line]
    assert [line.split("/3")[0][-1] for line in lines] == ["1", "2", "3"]
    assert all("ETA" in line and "it/s" in line for line in lines)


@pytest.mark.parametrize("norm", ["bn_eval", "bn"])
def test_fixed_statistics_stay_fixed_through_a_whole_run(train_tiny: Train, norm: str) -> None:
    folder = train_tiny(f"backbone.norm={norm}", "backbone.frozen_stages=1")
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    moved = {
        name.split(".")[2] for name, value in weights.items() if name.endswith("running_mean") and bool(value.any())
    }
    assert moved == (set() if norm == "bn_eval" else {"layer2", "layer3", "layer4"})


@pytest.mark.slow
def test_twelve_bits_are_trained_evaluated_and_predicted_as_eight_are(
    short_run: Path, train_tiny: Train, cli: Cli, tmp_path: Path
) -> None:
    data, runs = OmegaConf.load(short_run / "config.yaml").data, {}
    for name, factor, offset, dtype in (("eight", 1, 0, np.uint8), ("twelve", 16, 5, np.uint16)):
        for photo in Path(data.root).glob("*/*.png"):
            pixels = np.asarray(Image.open(photo).convert("L")).astype(dtype) * factor + offset
            (tmp_path / name / photo.parent.name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(dtype)).save(tmp_path / name / photo.parent.name / photo.name)
        images = [f"data.{part}.images={tmp_path}/{name}/{part}" for part in ("train", "val")]
        runs[name] = train_tiny("trainer.max_steps=2", "data.image_range=[5,4085]", *images)
    assert losses(runs["eight"]) == losses(runs["twelve"]) != []
    scores = (runs["eight"] / "metrics.json").read_bytes()
    assert scores == (runs["twelve"] / "metrics.json").read_bytes()
    checkpoint = f"checkpoint={runs['twelve']}/checkpoints/last.ckpt"
    for name in runs:
        other = ("data=shapes", "data.prepare.train=8", "data.prepare.val=3", f"data.val.images={tmp_path}/{name}/val")
        cli("evaluate", checkpoint, *other, "data.workers=0", "pictures=0", f"output_dir={tmp_path}/{name}/evaluated")
        assert (tmp_path / name / "evaluated/metrics.json").read_bytes() == scores
        source = f"source={tmp_path}/{name}/val"
        cli("predict", checkpoint, source, "device=cpu", "pictures=0", f"output_dir={tmp_path}/{name}/found")
    found = [(tmp_path / name / "found/detections.json").read_bytes() for name in runs]
    assert found[0] == found[1]
