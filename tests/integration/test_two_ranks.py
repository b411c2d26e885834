"""Several processes give what one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.fabric.strategies.launchers.subprocess_script import _hydra_subprocess_cmd
from tiny_runs import TINY_RUN, Cli

TWO_RANKS = ("trainer.devices=2", "trainer.strategy=ddp")


def r3cnn(*arguments: str) -> None:
    # Sums depend on the number of threads in their last bit, and Lightning gives each of two ranks half of them.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "r3cnn", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_ranks_evaluate_to_the_same_metrics_as_one(trained: Path, tmp_path: Path) -> None:
    call = (f"checkpoint={trained}/checkpoints/last.ckpt", "trainer.accelerator=cpu", "pictures=0", "workers=0")
    r3cnn("evaluate", *call, *TWO_RANKS, "eval_batch_size=1", f"output_dir={tmp_path}/two")
    r3cnn("evaluate", *call, "trainer.devices=1", "eval_batch_size=1", f"output_dir={tmp_path}/one")
    one, two = (tmp_path / name for name in ("one", "two"))
    assert (one / "metrics.json").read_text() == (two / "metrics.json").read_text()
    assert (one / "detections.json").read_text() == (two / "detections.json").read_text()


@pytest.mark.slow
def test_two_ranks_train_and_write_one_outcome(tmp_path: Path) -> None:
    settings = [*TINY_RUN, "trainer.max_steps=2", "pictures=0", f"output_dir={tmp_path}", *TWO_RANKS]
    r3cnn("train", *settings, "data.batch_size=2")
    assert json.loads((tmp_path / "metrics.json").read_text())["images"] == {"seen": 3, "total": 3}
    assert "= 0.004 x 4/16 images per step" in (tmp_path / "train.log").read_text()


def test_further_ranks_of_a_job_in_a_multirun_get_that_job_alone(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def note_call(_: object) -> None:
        command = [str(part) for part in _hydra_subprocess_cmd(1)[0]]
        calls.append(command[command.index("train") :])
        os.environ["LOCAL_RANK"] = "0"  # as Lightning does

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr("r3cnn.cli.train.run", note_call)
    search = f"hydra.searchpath=[file://{tmp_path}]"
    cli("train", "-m", "experiment=demo", "seed=3,4", search, f"output_dir={tmp_path}")
    assert "LOCAL_RANK" not in os.environ
    for job, call in enumerate(calls):
        settings = ["experiment=demo", f"seed={3 + job}", f"output_dir={tmp_path}", search]
        assert call[:6] == ["train", *settings, f'output_dir="{tmp_path}/{job}"']
        assert call[6] == f'hydra.run.dir="{tmp_path}/{job}"'
    assert len(calls) == 2


@pytest.mark.slow
def test_each_job_of_a_multirun_trains_on_two_ranks(tmp_path: Path) -> None:
    settings = [*TINY_RUN, "trainer.max_steps=1", "pictures=0", f"output_dir={tmp_path}", *TWO_RANKS]
    r3cnn("train", "-m", *settings, "data.batch_size=2", "seed=0,1")
    for job in "01":
        assert json.loads((tmp_path / job / "metrics.json").read_text())["images"] == {"seen": 3, "total": 3}
        assert "= 0.004 x 4/16 images per step" in (tmp_path / job / "train.log").read_text()
