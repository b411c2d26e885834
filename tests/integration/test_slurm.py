"""Sweeps on a real SLURM: it runs on this machine for as long as these tests do."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from local_cluster import PACKAGES, LocalCluster, local_cluster, missing_programs
from tiny_runs import TINY_RUN

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

# Eight steps over epochs of four steps of two ranks.
RUN = (
    *TINY_RUN,
    "data.batch_size=1",
    "trainer.max_steps=8",
    "pictures=0",
    "callbacks.last.every_n_train_steps=1",
    "callbacks.preemption.every_n_steps=1",
)
SLURM = ("launcher=slurm", "launcher.poll_seconds=0.5", "launcher.grace_seconds=20")
TWO_RANKS = (*SLURM, "launcher.tasks_per_node=2")
TIMEOUT = 600  # seconds; a machine may be busy


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A cluster of this module's own; whoever names a folder of real data wants all tests to run."""
    missing = missing_programs()
    if missing and "R3CNN_DATA" in os.environ:
        pytest.fail(f"{missing} not found, though R3CNN_DATA asks for all tests: apt-get install {PACKAGES}")
    if missing:
        pytest.skip(f"{missing} not found: apt-get install {PACKAGES}")
    with local_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep of two jobs by the launcher that needs no SLURM."""
    folder = tmp_path_factory.mktemp("ddp")
    status, errors = finished(start("launcher=ddp", "seed=0,1", f"output_dir={folder}"))
    assert status == 0, errors
    return folder


def start(*arguments: str, cluster: LocalCluster | None = None) -> subprocess.Popen[bytes]:
    environment = os.environ if cluster is None else cluster.environment
    return subprocess.Popen(
        [sys.executable, "-m", "r3cnn", "train", "-m", *RUN, *arguments],
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finished(sweep: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit status, and what was said."""
    try:
        _, errors = sweep.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        sweep.terminate()  # it cancels its jobs
        raise
    return sweep.returncode, errors.decode()


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def numbers(cluster: LocalCluster) -> list[str]:
    """Jobs that are in the queue, running or not."""
    return cluster.command("squeue", "--noheader", "--array", "--format=%i").split()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def assert_same_results(found: Path, expected: Path) -> None:
    for name in ("metrics.json", "detections.json", "roi_statistics_train.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    ours, theirs = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (found, expected)
    )
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


def log_of(folder: Path) -> str:
    return next(folder.glob("*/job.log")).read_text()


def test_a_sweep_of_two_jobs_with_two_ranks_each_ends_as_on_this_machine(
    cluster: LocalCluster, undisturbed: Path, tmp_path: Path
) -> None:
    status, errors = finished(start(*TWO_RANKS, "seed=0,1", f"output_dir={tmp_path}", cluster=cluster))
    assert status == 0, errors
    assert names(tmp_path) == names(undisturbed)
    assert len(names(tmp_path)) == 2
    for name in names(tmp_path):
        assert_same_results(tmp_path / name, undisturbed / name)


LEAVES = {
    "signalled": ("scancel", "--signal=USR1"),
    "taken off its machine": ("scontrol", "requeue"),
}


@pytest.mark.parametrize("command", LEAVES.values(), ids=LEAVES)
def test_a_job_in_the_middle_of_training_goes_on_to_the_same_results_after(
    cluster: LocalCluster, undisturbed: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    sweep = start(*TWO_RANKS, "seed=0", f"output_dir={tmp_path}", cluster=cluster)
    wait_until(lambda: bool(list(tmp_path.glob("*/checkpoints/last.ckpt"))))
    cluster.command(*command, *numbers(cluster))
    status, errors = finished(sweep)
    assert status == 0, errors
    name = names(tmp_path)[0]
    assert log_of(tmp_path).count("everything of this run goes to") == 2  # it was started twice
    assert (
        "stopping at step" in log_of(tmp_path) or "requeue" in command
    )  # which waits for SIGTERM's effect but briefly
    assert_same_results(tmp_path / name, undisturbed / name)


def test_two_nodes_with_a_rank_each_learn_what_two_ranks_on_one_node_do(
    cluster: LocalCluster, undisturbed: Path, tmp_path: Path
) -> None:
    both = (*SLURM, "launcher.nodes=2", "launcher.partition=pair", "seed=0")
    status, errors = finished(start(*both, f"output_dir={tmp_path}", cluster=cluster))
    assert status == 0, errors
    same_seed = [
        name for name in names(undisturbed) if "\nseed: 0\n" in (undisturbed / name / "config.yaml").read_text()
    ]
    assert_same_results(tmp_path / names(tmp_path)[0], undisturbed / same_seed[0])


def test_a_failed_and_a_cancelled_job_are_reported_and_another_one_goes_on(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    sweep = start(*SLURM, "optimizer.lr=0.01,1.0e+30,0.02", f"output_dir={tmp_path}", cluster=cluster)
    wait_until(lambda: len(numbers(cluster)) == 3)
    cluster.command("scancel", next(number for number in numbers(cluster) if number.endswith("_2")))
    status, errors = finished(sweep)
    assert status == 1
    assert re.search(r"SLURM job \d+_1 ended as FAILED", errors)
    assert "the loss is not finite" in errors
    # It may wait for its turn still, or have just begun.
    assert re.search(r"SLURM job \d+_2 (is no longer in the queue|ended as CANCELLED)", errors)
    assert "2 of 3 jobs failed" in errors
    assert len(list(tmp_path.glob("*/result.json"))) == 1


def test_ctrl_c_cancels_all_jobs(cluster: LocalCluster, tmp_path: Path) -> None:
    sweep = start(*TWO_RANKS, "seed=0,1", "trainer.max_steps=10000", f"output_dir={tmp_path}", cluster=cluster)
    wait_until(lambda: bool(list(tmp_path.glob("*/checkpoints/last.ckpt"))))
    sweep.send_signal(signal.SIGINT)
    status, errors = finished(sweep)
    assert (status, numbers(cluster)) == (128 + signal.SIGINT, [])
    assert "the same command continues from here" in errors


def test_what_sbatch_refuses_is_said(cluster: LocalCluster, tmp_path: Path) -> None:
    status, errors = finished(start(*SLURM, "launcher.partition=no_such", f"output_dir={tmp_path}", cluster=cluster))
    assert status == 2
    assert "sbatch refused the jobs" in errors
    assert "invalid partition specified: no_such" in errors


def test_a_batch_script_without_srun_is_refused_where_lightning_would_wait_for_ever(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    log, script = tmp_path / "log", tmp_path / "job.sh"
    call = [sys.executable, "-m", "r3cnn", "train", *RUN, f"output_dir={tmp_path}/run"]
    script.write_text(
        f"#!/bin/bash\n#SBATCH --ntasks-per-node=2 --output={log}\n{shlex.join(call)}\necho ended with $?\n"
    )
    cluster.command("sbatch", str(script))
    wait_until(lambda: log.is_file() and "ended with" in log.read_text())
    *errors, status = log.read_text().splitlines()
    assert status == "ended with 2"
    assert len(errors) == 1
    assert "2 ranks are asked for" in errors[0]
    assert "`srun r3cnn …`" in errors[0]
