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
EXTRAS = ("evaluation.score_fusions=[last]", "evaluation.tta.flip=true", "evaluation.verify_backend=true")


def r3cnn(*arguments: str) -> None:
    # Sums depend on the number of threads in their last bit, and Lightning gives each of two ranks half of them.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "r3cnn", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2])
def test_two_and_three_ranks_evaluate_to_the_same_metrics_as_one(
    trained: Path, tmp_path: Path, batch_size: int
) -> None:
    """Three images: one batch each for three ranks, or two batches, so that the third rank has none."""
    call = (f"checkpoint={trained}/checkpoints/last.ckpt", "trainer.accelerator=cpu", "pictures=0", "workers=0")
    call = (*call, *EXTRAS, f"eval_batch_size={batch_size}")
    r3cnn("evaluate", *call, "trainer.devices=1", f"output_dir={tmp_path}/1")
    for ranks in "23":
        r3cnn("evaluate", *call, f"trainer.devices={ranks}", "trainer.strategy=ddp", f"output_dir={tmp_path}/{ranks}")
        for name in ("metrics.json", "detections.json", "detections_loop1.json", "roi_statistics.json"):
            assert (tmp_path / "1" / name).read_text() == (tmp_path / ranks / name).read_text(), name


@pytest.mark.slow
def test_two_ranks_train_and_write_one_outcome(tmp_path: Path) -> None:
    settings = [*TINY_RUN, "trainer.max_steps=2", "pictures=0", f"output_dir={tmp_path}", *TWO_RANKS]
    r3cnn("train", *settings, "data.batch_size=2")
    assert json.loads((tmp_path / "metrics.json").read_text())["images"] == {"seen": 3, "total": 3}
    assert "= 0.004 x 4/16 images per step" in (tmp_path / "train.log").read_text()


@pytest.mark.slow
def test_what_is_said_last_of_ranks_that_fail_is_the_cause_and_not_that_a_rank_was_lost(tmp_path: Path) -> None:
    settings = [*TINY_RUN, "pictures=0", f"output_dir={tmp_path}", *TWO_RANKS, "data.batch_size=1"]
    command = [sys.executable, "-m", "r3cnn", "train", *settings, "+callbacks.failing._target_=alarm.Failing"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr.count("Traceback (most recent call last)") == 1
    *_, cause, lost = [line for line in done.stderr.splitlines() if "this rank is" in line or "lost" in line]
    assert cause == "RuntimeError: this rank is the one that failed"
    assert lost == "r3cnn: rank 0 has lost another rank, which says why or was killed"


def test_further_ranks_of_a_job_in_a_multirun_get_that_job_alone(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def note_call(_: object) -> None:
        command = [str(part) for part in _hydra_subprocess_cmd(1)[0]]
        calls.append(command[command.index("evaluate") :])
        os.environ["LOCAL_RANK"] = "0"  # as Lightning does

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr("r3cnn.cli.evaluate.run", note_call)
    search = f"hydra.searchpath=[file://{tmp_path}]"
    cli("evaluate", "-m", "checkpoint=last.ckpt", "seed=3,4", search, f"output_dir={tmp_path}")
    assert "LOCAL_RANK" not in os.environ
    for job, call in enumerate(calls):
        settings = ["checkpoint=last.ckpt", f"seed={3 + job}", f"output_dir={tmp_path}", search]
        assert call[:6] == ["evaluate", *settings, f'output_dir="{tmp_path}/{job}"']
        assert call[6] == f'hydra.run.dir="{tmp_path}/{job}"'
    assert len(calls) == 2


@pytest.mark.slow
def test_each_job_of_a_sweep_trains_on_two_ranks_that_lightning_starts(tmp_path: Path) -> None:
    settings = [*TINY_RUN, "trainer.max_steps=1", "pictures=0", f"output_dir={tmp_path}", *TWO_RANKS]
    r3cnn("train", "-m", *settings, "data.batch_size=2", "seed=0,1")
    jobs = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(jobs) == 2
    for job in jobs:
        assert json.loads((job / "metrics.json").read_text())["images"] == {"seen": 3, "total": 3}
        assert "= 0.004 x 4/16 images per step" in (job / "train.log").read_text()
