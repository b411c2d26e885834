"""Jobs of a sweep on a SLURM cluster."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from typing import TYPE_CHECKING

from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r3cnn.cli.jobs import Job
from r3cnn.cli.processes import LOG_FILE, EndingSignals
from r3cnn.cli.ranks import is_of_one_process
from r3cnn.cli.slurm_rank import run_rank

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)
OURS = ("poll_seconds", "result_seconds", "grace_seconds", "shown_lines")  # all other settings are the plugin's
OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS")  # say which SLURM to speak to, not where this process is in a job
COMPLETED = "COMPLETED"
GONE = "GONE"  # no longer in the queue: of an array and cancelled before it started, or long over
ENDED = {COMPLETED, GONE, "BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT"}
POLL_SECONDS = 0.1  # between two looks at our own signals


def run_on_slurm(jobs: Sequence[Job], settings: DictConfig) -> dict[Path, str]:
    """Submits jobs, as one array, and waits until all have ended.

    Args:
        jobs: Jobs in folders of their own.
        settings: The ``launcher`` node of the sweep's configuration.

    Returns:
        Folder of each job that failed, with the reason.

    Raises:
        CompactHydraException: If they cannot be submitted.
        SystemExit: When this process is asked to end; by then all jobs are cancelled.
    """
    if not jobs:
        return {}
    waiting: dict[str, Job] = {}
    failures: dict[Path, str] = {}
    signals = EndingSignals()
    executor = queue(settings)
    with signals.noted():
        try:
            waiting |= _submit(executor, jobs)
            _wait_for(waiting, failures, settings, lambda: bool(signals.received))
        finally:
            _cancel(list(waiting), settings.grace_seconds)
    if signals.received:
        log.error("ended by %s; the same command continues from here", Signals(signals.received[0]).name)
        raise SystemExit(128 + signals.received[0])
    return failures


def queue(settings: DictConfig) -> submitit.AutoExecutor:
    """What jobs are handed to.

    Raises:
        CompactHydraException: If it is not there, or does not take the settings.
    """
    try:
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    except ModuleNotFoundError as error:
        raise CompactHydraException(f"launcher=slurm: {error}; pip install 'r3cnn[slurm]'") from error
    parameters = queue_parameters(settings)
    folder = parameters.pop("submitit_folder")
    shared = set(OmegaConf.structured(BaseQueueConf))
    try:
        python = f"{shlex.quote(sys.executable)} -P"  # not every cluster hands the environment on
        executor = submitit.AutoExecutor(folder=str(folder), cluster="slurm", slurm_python=python)
        executor.update_parameters(**{key if key in shared else f"slurm_{key}": parameters[key] for key in parameters})
    except RuntimeError as error:
        raise CompactHydraException(f"launcher=slurm: {error} `launcher=ddp` runs on this machine alone.") from error
    return executor


def queue_parameters(settings: DictConfig) -> dict[str, object]:
    """The settings of the jobs, checked, with what every job of ours needs.

    SLURM is to send SIGUSR1 before the time is over, which the callback ``preemption`` listens for; submitit's own
    handler of SIGUSR2 stays idle, since it would requeue without a checkpoint. A failed rank ends the others.

    Args:
        settings: The ``launcher`` node of the sweep's configuration.

    Raises:
        CompactHydraException: For an unknown setting, or one of the wrong type.
    """
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

    given = {key: value for key, value in settings.items() if key not in OURS}
    schema = OmegaConf.structured(SlurmQueueConf)
    try:
        checked = OmegaConf.to_container(OmegaConf.merge(schema, given), resolve=False)
    except OmegaConfBaseException as error:
        raise CompactHydraException(f"launcher: {error}") from error
    if not isinstance(checked, dict):
        raise ValueError(f"a mapping is needed, got {checked!r}")
    found = {str(key): value for key, value in checked.items() if key in given}
    warning = {"signal": f"USR1@{found['signal_delay_s']}", "requeue": True}
    cpus = found["cpus_per_task"]
    threads = [] if cpus is None else [f"--cpus-per-task={cpus}"]  # srun does not take it from sbatch any more
    found["additional_parameters"] = {**warning, **found["additional_parameters"]}
    return {**found, "srun_args": ["--kill-on-bad-exit=1", *threads]}


def _submit(executor: submitit.AutoExecutor, jobs: Sequence[Job]) -> dict[str, Job]:
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    with _outside_of_any_job():
        try:
            queued = executor.map_array(run_rank, [job.arguments for job in jobs], [job.folder for job in jobs])
        except (FailedJobError, FailedSubmissionError) as error:
            raise CompactHydraException(f"launcher=slurm: sbatch refused the jobs: {error}") from error
    for each, job in zip(queued, jobs, strict=True):
        log.info("SLURM job %s: %s", each.job_id, job.folder)
    return {each.job_id: job for each, job in zip(queued, jobs, strict=True)}


@contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Hides the variables of the job that this process may belong to, which sbatch would hand on to the new ones."""
    hidden = {name: os.environ[name] for name in os.environ if is_of_one_process(name) and name not in OF_THE_CLUSTER}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _wait_for(
    waiting: dict[str, Job], failures: dict[Path, str], settings: DictConfig, is_asked_to_end: Callable[[], bool]
) -> None:
    """Removes jobs from ``waiting`` as they end, and notes the failed ones."""
    known: dict[str, str] = {}
    while waiting and not is_asked_to_end():
        states = job_states(waiting) or known
        for number, state in states.items():
            job = waiting.get(number)
            if job is None or state == known.get(number):
                continue
            log.info("%s: %s (SLURM job %s)", state.lower(), job.folder, number)
            if state not in ENDED:
                continue
            del waiting[number]
            is_good = state == COMPLETED or (state == GONE and (job.folder / LOG_FILE).is_file())
            if not _has_result(job, settings.result_seconds if is_good else 0):
                ending = "is no longer in the queue" if state == GONE else f"ended as {state}"
                folder = str(settings.submitit_folder).replace("%j", number.split("_")[0])
                failures[job.folder] = f"SLURM job {number} {ending}; what SLURM printed is in {folder}"
        known = states
        deadline = time.monotonic() + settings.poll_seconds
        while waiting and time.monotonic() < deadline and not is_asked_to_end():
            time.sleep(POLL_SECONDS)


def _has_result(job: Job, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not job.is_finished and time.monotonic() < deadline:
        time.sleep(1)
    return job.is_finished


def job_states(numbers: Mapping[str, object] | Sequence[str]) -> dict[str, str]:
    """What SLURM says of jobs, from the queue itself: not every cluster keeps accounts.

    Args:
        numbers: Numbers of jobs, ``5`` or, of an array, ``5_0``.

    Returns:
        State of each of them, such as ``RUNNING``; empty if SLURM does not answer.
    """
    command = ("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i %T")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        log.warning("SLURM cannot be asked for the state of its jobs: squeue: %s", said)
        return {}
    found = dict(line.split() for line in done.stdout.splitlines())
    return {number: found.get(number, GONE) for number in numbers}


def _cancel(numbers: Sequence[str], grace_seconds: float) -> None:
    """Takes jobs out of the queue and waits until they have ended."""
    if not numbers:
        return
    try:
        subprocess.run(["scancel", *numbers], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        log.error("SLURM jobs %s could not be cancelled: %s", " ".join(numbers), error)
        return
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and not _have_ended(job_states(numbers)):
        time.sleep(1)


def _have_ended(states: Mapping[str, str]) -> bool:
    """Whether all jobs have; where SLURM does not answer, nobody knows."""
    return bool(states) and set(states.values()) <= ENDED
