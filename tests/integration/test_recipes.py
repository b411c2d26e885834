"""Runs with the parts that go beyond the paper: a moving average, early stopping, TensorBoard, augmentation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_runs import EVERY_STEP, Cli, Train

AVERAGED = (*EVERY_STEP, "callbacks=ema", "callbacks.ema.decay=0.5", "pictures=0")


def content(folder: Path, name: str = "last") -> dict[str, object]:
    return torch.load(folder / f"checkpoints/{name}.ckpt", weights_only=True)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def averaged(train_tiny: Train) -> Path:
    return train_tiny(*AVERAGED)


def test_the_average_changes_nothing_about_the_training_itself(averaged: Path, trained: Path) -> None:
    for name in ("at_3", "last"):
        assert same(content(averaged, name)["current_model_state"], content(trained, name)["state_dict"])


def test_a_checkpoint_holds_the_average_of_the_weights_of_every_step(averaged: Path, trained: Path) -> None:
    per_step = [content(trained, f"at_{step}")["state_dict"] for step in range(1, 8)]
    for name in (key for key, value in per_step[0].items() if value.is_floating_point()):
        average = per_step[0][name].double()
        for steps, weights in enumerate(per_step[1:], start=1):
            share = min(0.5, (1 + steps) / (10 + steps))
            average = share * average + (1 - share) * weights[name].double()
        assert torch.allclose(content(averaged)["state_dict"][name].double(), average, atol=1e-6), name


@pytest.mark.slow
def test_the_metrics_of_a_run_are_those_of_its_average(averaged: Path, cli: Cli, tmp_path: Path) -> None:
    cli(
        "evaluate",
        f"checkpoint={averaged}/checkpoints/last.ckpt",
        "trainer.accelerator=cpu",
        "pictures=0",
        f"output_dir={tmp_path}",
    )
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads((averaged / "metrics.json").read_text())
    assert (tmp_path / "detections.json").read_text() == (averaged / "detections.json").read_text()


@pytest.mark.parametrize("name", ["at_4", pytest.param("best", marks=pytest.mark.slow)])
def test_a_resumed_run_ends_with_the_same_bits_in_weights_and_average(
    averaged: Path, train_tiny: Train, name: str
) -> None:
    resumed = train_tiny(*AVERAGED, f"resume={averaged}/checkpoints/{name}.ckpt")
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert same(content(resumed)[key], content(averaged)[key]), key


def test_the_end_of_a_run_keeps_the_weights_of_its_last_step_beside_their_average(averaged: Path) -> None:
    during, after = content(averaged, "at_7"), content(averaged, "last")
    for key in ("state_dict", "current_model_state", "averaging_state"):
        assert same(during[key], after[key]), key
    assert not same(after["state_dict"], after["current_model_state"])


def test_a_run_with_an_average_is_not_resumed_without_one(averaged: Path, train_tiny: Train) -> None:
    with pytest.raises(ValueError, match=r"callbacks=ema.*init="):
        train_tiny(*EVERY_STEP, f"resume={averaged}/checkpoints/at_4.ckpt")


@pytest.mark.slow
def test_training_ends_early_when_the_ap_stays_where_it_is(train_tiny: Train) -> None:
    folder = train_tiny(
        *EVERY_STEP,
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=1",
        "trainer.max_steps=30",
        "pictures=0",
    )
    assert content(folder)["global_step"] == 6  # the second validation, after two epochs of three batches
    assert (folder / "metrics.json").is_file()
    assert "stopped early: Monitored metric val/mask_ap did not improve" in (folder / "train.log").read_text()


def test_tensorboard_gets_every_number_and_a_resumed_run_none_of_them_twice(train_tiny: Train) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train_tiny("trainer.max_steps=3", "logger=csv_tensorboard", "pictures=0")
    train_tiny("trainer.max_steps=5", "logger=csv_tensorboard", "resume=last", "pictures=0", folder=folder)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3, 4]
    assert {"train/loop3/mask", "val/mask_ap"} <= set(events.Tags()["scalars"])
    assert (folder / "metrics.csv").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("augmentation=large_scale_jitter", "augmentation.scaling.crop=[64,64]", "augmentation.color.probability=0.5"),
        ("augmentation=multi_scale",),
    ],
)
def test_a_run_with_augmentation_is_evaluated_from_its_checkpoint_alone(
    train_tiny: Train, cli: Cli, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    folder = train_tiny(*overrides, "pictures=0")
    cli(
        "evaluate",
        f"checkpoint={folder}/checkpoints/last.ckpt",
        "trainer.accelerator=cpu",
        "pictures=0",
        f"output_dir={tmp_path}",
    )
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_a_network_of_timm_is_trained_and_evaluated_from_its_checkpoint_alone(
    train_tiny: Train, cli: Cli, tmp_path: Path
) -> None:
    network = ("backbone=timm", "backbone.name=convnext_atto", "backbone.pretrained=false")
    folder = train_tiny(*network, "pictures=0", "trainer.max_steps=2")
    cli(
        "evaluate",
        f"checkpoint={folder}/checkpoints/last.ckpt",
        "trainer.accelerator=cpu",
        "pictures=0",
        f"output_dir={tmp_path}",
    )
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads((folder / "metrics.json").read_text())
