"""A run that was cut off goes on as if nothing had happened."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from conftest import EVERY_STEP, Cli


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["train/loss"]]


@pytest.mark.parametrize("name", ["at_1", "at_2", "at_3", "at_4", "at_5", "best"])
def test_a_resumed_run_ends_with_the_same_bits_as_an_undisturbed_one(trained: Path, train_tiny: Cli, name: str) -> None:
    resumed = train_tiny(*EVERY_STEP, f"resume={trained}/checkpoints/{name}.ckpt")
    expected, found = weights(trained / "checkpoints/last.ckpt"), weights(resumed / "checkpoints/last.ckpt")
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    losses = {row["step"]: row["train/loss"] for row in rows(trained)}
    assert [row["train/loss"] for row in rows(resumed)] == [losses[row["step"]] for row in rows(resumed)]
