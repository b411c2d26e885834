"""A run that is told to leave ends between two steps and goes on from there as if nothing had happened."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY_RUN, Train

# Seven steps over epochs of three batches, validated after each epoch, in the middle of which one checkpoint is kept.
RUN = (
    "trainer.max_steps=7",
    "trainer.val_check_interval=1.0",
    "trainer.check_val_every_n_epoch=1",
    "pictures=0",
    "callbacks=ema",  # whose average is in the network during a validation
    "callbacks.preemption.every_n_steps=1",
)
TIMEOUT = 300  # seconds; a machine may be busy
ALARM = "+callbacks.alarm._target_=alarm.Alarm"


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def steps_done(folder: Path) -> int:
    return int(torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"])


def losses(folder: Path) -> list[str]:
    lines = (folder / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("train/loss")
    return [line.split(",")[column] for line in lines[1:] if line.split(",")[column]]


def assert_same_results(found: Path, expected: Path) -> None:
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt"):
        ours, theirs = weights(found / name), weights(expected / name)
        assert ours.keys() == theirs.keys()
        assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == [], name
    for name in ("metrics.json", "detections.json", "roi_statistics_train.json"):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.fixture(scope="module")
def undisturbed(train_tiny: Train) -> Path:
    return train_tiny(*RUN)


LEAVES = [
    # when the signal comes, which one, optimizer steps that are done when the run leaves, exit status
    pytest.param("before_start=true", "USR1", 1, 75, id="before the first step", marks=pytest.mark.slow),
    pytest.param("before_step=1", "TERM", 2, 143, id="within an epoch", marks=pytest.mark.slow),
    pytest.param("before_step=4", "HUP", 5, 129, id="within a later epoch", marks=pytest.mark.slow),
    pytest.param("in_validation=true", "INT", 3, 130, id="in a validation"),
    pytest.param("before_step=6", "TERM", 7, 143, id="in the last step", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("when", "name", "steps", "status"), LEAVES)
def test_a_run_told_to_leave_goes_on_to_the_results_of_an_undisturbed_one(
    train_tiny: Train, tmp_path: Path, undisturbed: Path, when: str, name: str, steps: int, status: int
) -> None:
    alarm = (f"+callbacks.alarm.name=SIG{name}", f"+callbacks.alarm.{when}")
    with pytest.raises(SystemExit) as left:
        train_tiny(*RUN, ALARM, *alarm, folder=tmp_path)
    assert left.value.code == status
    assert f"stopping at step {steps} on SIG{name}" in (tmp_path / "train.log").read_text()
    assert steps_done(tmp_path) == steps
    assert not (tmp_path / "metrics.json").exists()
    assert losses(tmp_path) == losses(undisturbed)[:steps]
    train_tiny(*RUN, "resume=last", folder=tmp_path)
    assert_same_results(tmp_path, undisturbed)
    assert losses(tmp_path) == losses(undisturbed)


@pytest.mark.slow
def test_a_run_told_to_leave_in_its_final_evaluation_evaluates_its_final_weights_later(
    train_tiny: Train, tmp_path: Path, undisturbed: Path
) -> None:
    final_only = (*RUN, "trainer.check_val_every_n_epoch=9")
    with pytest.raises(SystemExit):
        train_tiny(*final_only, ALARM, "+callbacks.alarm.in_validation=true", folder=tmp_path)
    assert steps_done(tmp_path) == 7
    assert not (tmp_path / "metrics.json").exists()
    train_tiny(*final_only, "resume=last", folder=tmp_path)
    found, expected = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path, undisturbed))
    assert found == expected
    assert json.loads((tmp_path / "result.json").read_text())["train_memory_bytes"] > 0  # though no step was left


@pytest.mark.slow
def test_a_run_with_accumulated_gradients_leaves_after_a_whole_step(train_tiny: Train, tmp_path: Path) -> None:
    accumulated = (*RUN, "trainer.accumulate_grad_batches=2", "data.batch_size=1", "trainer.max_steps=6")
    expected = train_tiny(*accumulated)
    with pytest.raises(SystemExit):
        train_tiny(*accumulated, ALARM, "+callbacks.alarm.before_step=1", folder=tmp_path)
    assert steps_done(tmp_path) == 2
    train_tiny(*accumulated, "resume=last", folder=tmp_path)
    assert_same_results(tmp_path, expected)


def test_asking_less_than_every_step_is_refused(train_tiny: Train) -> None:
    with pytest.raises(ValueError, match=r"preemption\.every_n_steps must be in \[1, inf\), got 0"):
        train_tiny("callbacks.preemption.every_n_steps=0")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_ctrl_c_in_a_terminal_saves_a_checkpoint_and_ends_ranks_and_loading_processes_without_a_traceback(
    tmp_path: Path, ranks: int
) -> None:
    """A terminal signals every process of its foreground group."""
    settings = (*TINY_RUN, *RUN, "trainer.max_steps=100000", "data.workers=1", "data.batch_size=1")
    settings += (f"trainer.devices={ranks}", f"output_dir={tmp_path}")
    command = [sys.executable, "-m", "r3cnn", "train", *settings]
    run = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    end = time.monotonic() + TIMEOUT
    while not (tmp_path / "metrics.csv").exists() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=TIMEOUT)
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.count("stopping at step") == 1
    assert steps_done(tmp_path) > 0
    while is_any_left(run.pid):  # loading processes look after their parent now and then
        assert time.monotonic() < end
        time.sleep(0.1)


def is_any_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_terminal_that_is_closed_saves_a_checkpoint(tmp_path: Path) -> None:
    terminal, ours = pty.openpty()
    command = [sys.executable, "-m", "r3cnn", "train", *TINY_RUN, "trainer.max_steps=100000", f"output_dir={tmp_path}"]
    process = subprocess.Popen(
        command,
        stdin=ours,
        stdout=ours,
        stderr=ours,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # the terminal tells the session when it goes
    )
    os.close(ours)
    end = time.monotonic() + TIMEOUT
    while not (tmp_path / "metrics.csv").is_file() and process.poll() is None and time.monotonic() < end:
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 65536)  # the progress bar, which would wait for a reader
    os.close(terminal)
    assert process.wait(TIMEOUT) == 129
    assert steps_done(tmp_path) > 0
