"""A run that was cut off goes on as if nothing had happened."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from tiny_runs import EVERY_STEP, Train


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["train/loss"]]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("at_1", "at_3", "at_4", "at_5", "best")]


@pytest.mark.parametrize("name", ["at_2", *SLOW])
def test_a_resumed_run_ends_with_the_same_bits_as_an_undisturbed_one(
    trained: Path, train_tiny: Train, name: str
) -> None:
    resumed = train_tiny(*EVERY_STEP, f"resume={trained}/checkpoints/{name}.ckpt")
    expected, found = weights(trained / "checkpoints/last.ckpt"), weights(resumed / "checkpoints/last.ckpt")
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    losses = {row["step"]: row["train/loss"] for row in rows(trained)}
    assert [row["train/loss"] for row in rows(resumed)] == [losses[row["step"]] for row in rows(resumed)]


# Two batches per optimizer step, and a checkpoint at each validation: after the third batch, and so on.
ACCUMULATED = (
    "trainer.accumulate_grad_batches=2",
    "trainer.max_steps=6",
    "data.batch_size=1",
    "trainer.val_check_interval=3",
    "callbacks.last.every_n_train_steps=null",
    "callbacks.last.filename='at_{step}'",
    "+callbacks.last.save_top_k=-1",
    "+callbacks.last.auto_insert_metric_name=false",
    "pictures=0",
)


def test_a_run_resumed_between_two_optimizer_steps_ends_with_the_same_bits(train_tiny: Train) -> None:
    whole = train_tiny(*ACCUMULATED)
    middle = whole / "checkpoints/at_1.ckpt"
    assert (
        torch.load(middle, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"]
        == 3
    )
    resumed = train_tiny(*ACCUMULATED, f"resume={middle}")
    expected, found = weights(whole / "checkpoints/last.ckpt"), weights(resumed / "checkpoints/last.ckpt")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    losses = {row["step"]: row["train/loss"] for row in rows(whole)}
    assert {row["step"]: row["train/loss"] for row in rows(resumed)} == {
        step: loss for step, loss in losses.items() if int(step) >= 1
    }


def test_a_run_that_is_resumed_in_its_folder_keeps_one_gapless_table(train_tiny: Train) -> None:
    folder = train_tiny("trainer.max_steps=3")
    train_tiny("trainer.max_steps=5", "resume=last", folder=folder)
    assert [int(row["step"]) for row in rows(folder)] == [0, 1, 2, 3, 4]


def test_resuming_without_a_checkpoint_says_where_it_was_looked_for(train_tiny: Train, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"resume=last: no checkpoint at .*last\.ckpt"):
        train_tiny("resume=last", folder=tmp_path)
