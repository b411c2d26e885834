"""Whole runs on a handful of drawn images, small enough for a CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TINY = (
    "experiment=demo",
    "channels=16",
    "rois_per_image=16",
    "box_head.hidden=32",
    "mask_head.num_convs=1",
    "rpn.train_proposals.per_image=32",
    "rpn.eval_proposals.per_image=16",
    "data.prepare.train=8",
    "data.prepare.val=3",
    "data.batch_size=3",
    "data.image_size=[64,96]",
    "data.workers=0",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "trainer.max_steps=4",
    "pictures=1",
)

Cli = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Draws the shapes into a folder of this session, and lets runs report nothing to the outside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("R3CNN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HYDRA_FULL_ERROR", "1")
        patch.setenv("WANDB_MODE", "offline")
        yield


def run_command(*arguments: str) -> None:
    """`r3cnn` with these arguments, in this process."""
    from r3cnn.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["r3cnn", *arguments])
        main()


@pytest.fixture(scope="session")
def r3cnn() -> Callable[..., None]:
    """Runs a command line in this process."""
    return run_command


@pytest.fixture(scope="session")
def train_tiny(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Trains a tiny network; gives the folder that the run wrote."""

    def train(*overrides: str, folder: Path | None = None) -> Path:
        folder = folder or tmp_path_factory.mktemp("run")
        run_command("train", *TINY, f"output_dir={folder}", *overrides)
        return folder

    return train


@pytest.fixture(scope="session")
def trained(train_tiny: Cli) -> Path:
    """The folder of one finished tiny run of 7 steps over epochs of 3 or 4 batches, with a checkpoint of every step."""
    return train_tiny(*EVERY_STEP)


EVERY_STEP = (
    "trainer.max_steps=7",
    "trainer.val_check_interval=1.0",
    "trainer.check_val_every_n_epoch=1",
    "callbacks.last.every_n_train_steps=1",
    "callbacks.last.filename='at_{step}'",
    "+callbacks.last.save_top_k=-1",
    "+callbacks.last.auto_insert_metric_name=false",
)
