"""Sweeps: one folder per job, whatever happens to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY_RUN

from r3cnn.cli.processes import marked_processes
from r3cnn.cli.ranks import OF_A_SWEEP

SWEEP = (
    *TINY_RUN,
    "launcher=ddp",
    "data.batch_size=2",
    "pictures=0",
    "trainer.max_steps=3",
    "callbacks.last.every_n_train_steps=1",
    "seed=0,1",
)
TIMEOUT = 600  # seconds; a machine may be busy
Sweep = subprocess.Popen[bytes]
Start = Callable[..., Sweep]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts a sweep; whatever it has running at the end of the tests is killed."""
    started: list[Sweep] = []

    def sweep(*arguments: str) -> Sweep:
        command = [sys.executable, "-m", "r3cnn", "train", "-m", *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        return started[-1]

    yield sweep
    for each in started:
        each.kill()
        for pid in processes_of(each):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def finished(sweep: Sweep) -> tuple[int, str]:
    """Exit status, and what was said."""
    _, errors = sweep.communicate(timeout=TIMEOUT)
    return sweep.returncode, errors.decode()


def processes_of(sweep: Sweep) -> set[int]:
    """All processes of the jobs of a sweep, whoever their parents are."""
    return marked_processes(f"{OF_A_SWEEP}={sweep.pid}")


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def outcome(folder: Path) -> tuple[str, str, dict[str, torch.Tensor]]:
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return (folder / "metrics.json").read_text(), (folder / "detections.json").read_text(), weights


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def undisturbed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    status, errors = finished(start(*SWEEP, f"output_dir={folder}"))
    assert status == 0, errors
    return folder


@pytest.mark.slow
def test_a_sweep_that_is_killed_in_the_middle_and_started_again_ends_as_an_undisturbed_one(
    undisturbed: Path, start: Start, tmp_path: Path
) -> None:
    sweep = start(*SWEEP, f"output_dir={tmp_path}")
    wait_until(lambda: len(list(tmp_path.glob("*/checkpoints/last.ckpt"))) == 2)
    sweep.kill()
    finished(sweep)
    wait_until(lambda: not processes_of(sweep))
    done = [path.parent for path in tmp_path.glob("*/result.json")]
    assert len(done) == 1
    written = (done[0] / "result.json").stat().st_mtime_ns

    status, errors = finished(start(*SWEEP, f"output_dir={tmp_path}"))
    assert status == 0, errors
    assert f"finished already: {done[0]}" in errors
    assert (done[0] / "result.json").stat().st_mtime_ns == written
    assert names(tmp_path) == names(undisturbed)
    for name in names(tmp_path):
        ours, theirs = outcome(tmp_path / name), outcome(undisturbed / name)
        assert ours[:2] == theirs[:2]
        assert ours[2].keys() == theirs[2].keys()
        assert all(torch.equal(tensor, theirs[2][key]) for key, tensor in ours[2].items())
        assert ("resuming from step" in (tmp_path / name / "train.log").read_text()) == (tmp_path / name != done[0])


@pytest.mark.slow
def test_two_ranks_write_one_folder_with_one_log(undisturbed: Path) -> None:
    assert len(names(undisturbed)) == 2
    for name in names(undisturbed):
        logs = sorted(path.name for path in (undisturbed / name).glob("*.log"))
        assert logs == ["job.log", "train.log"]
        text = (undisturbed / name / "train.log").read_text()
        assert text.count("everything of this run goes to") == 1
        assert "x 4/16 images per step" in text


@pytest.mark.slow
def test_ctrl_c_ends_every_rank_of_the_jobs_of_a_sweep(start: Start, tmp_path: Path) -> None:
    sweep = start(*SWEEP, f"output_dir={tmp_path}", "trainer.max_steps=1000")
    wait_until(lambda: any(tmp_path.glob("*/checkpoints/last.ckpt")))
    assert len(processes_of(sweep)) >= 3  # torchrun and two ranks
    sweep.send_signal(signal.SIGINT)
    status, errors = finished(sweep)
    assert status == 128 + signal.SIGINT
    assert "ended by" in errors
    wait_until(lambda: not processes_of(sweep))
    assert len(names(tmp_path)) == 1  # the second job was not started


@pytest.mark.slow
def test_a_failed_job_stops_no_other_and_is_reported_with_its_folder_and_log(start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "annotations").write_text("a file where a folder is needed")
    one_step = (*TINY_RUN, "launcher=ddp", "launcher.ranks=1", "trainer.max_steps=1", "pictures=0")
    sweep = start(*one_step, f"data.root={broken},{tmp_path}/drawn", f"output_dir={tmp_path}/out")
    status, errors = finished(sweep)
    assert status == 1
    failed = [name for name in names(tmp_path / "out") if not (tmp_path / "out" / name / "result.json").exists()]
    assert len(names(tmp_path / "out")) == 2
    assert len(failed) == 1
    assert f"1 of 2 jobs failed: {tmp_path}/out/{failed[0]}" in errors
    assert f"r3cnn: data.prepare: {broken} holds no recipe.json" in errors  # what the rank said, not torchrun
    assert "Traceback" not in errors.split("1 of 2 jobs failed")[-1]
    assert "Error executing job" not in errors
