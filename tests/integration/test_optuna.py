"""Optuna as the sweeper: it chooses, the launcher runs, and the mask AP is what it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny_runs import TINY_RUN

SEARCH = (
    *TINY_RUN,
    "trainer.max_steps=1",
    "pictures=0",
    "hydra/sweeper=optuna",
    "hydra.sweeper.sampler.seed=0",
    "hydra.sweeper.n_jobs=1",
    "optimizer.lr=tag(log, interval(1e-4, 1e-2))",
)


def search(folder: Path, trials: int) -> str:
    command = [
        sys.executable,
        "-m",
        "r3cnn",
        "train",
        "-m",
        *SEARCH,
        f"hydra.sweeper.n_trials={trials}",
        f"output_dir={folder}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_a_search_ends_with_the_best_mask_ap_and_skips_its_trials_when_it_is_started_again(tmp_path: Path) -> None:
    search(tmp_path, trials=2)
    records = {path: json.loads(path.read_text()) for path in tmp_path.glob("*/result.json")}
    rates = {record["config"]["optimizer"]["lr"] for record in records.values()}
    assert len(rates) == 2
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    best = OmegaConf.load(tmp_path / "optimization_results.yaml")
    assert best.best_value == max(record["metrics"]["mask"]["ap"] for record in records.values())
    assert best.best_params["optimizer.lr"] in rates

    again = search(tmp_path, trials=1)
    assert again.count("finished already") == 1
    assert {path: json.loads(path.read_text()) for path in tmp_path.glob("*/result.json")} == records
