"""Whole runs on a handful of drawn images, small enough for a CPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_runs import EVERY_STEP, TINY_RUN, Cli, Train


@pytest.fixture(scope="session")
def cli() -> Cli:
    """`r3cnn` with the given arguments, in this process; errors come up as they were raised."""

    def run(*arguments: str) -> None:
        from r3cnn.cli.main import start

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["r3cnn", *arguments])
            patch.setenv("HYDRA_FULL_ERROR", "1")
            start(arguments)

    return run


@pytest.fixture(scope="session")
def train_tiny(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Train:
    """Trains a tiny network with further overrides; gives the folder that the run wrote."""

    def train(*overrides: str, folder: Path | None = None) -> Path:
        folder = folder or tmp_path_factory.mktemp("run")
        cli("train", *TINY_RUN, f"output_dir={folder}", *overrides)
        return folder

    return train


@pytest.fixture(scope="session")
def trained(train_tiny: Train) -> Path:
    """Folder of a finished tiny run with a checkpoint of every step."""
    return train_tiny(*EVERY_STEP)
