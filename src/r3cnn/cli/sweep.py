"""What the launchers of a sweep share: jobs that are checked before any is started, and what becomes of each."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, read_write
from omegaconf.errors import OmegaConfBaseException

from r3cnn.cli.errors import JobsFailed, message_for_user
from r3cnn.cli.jobs import AUTO, Job, job_of, known_to_hydra, task_config
from r3cnn.cli.local_jobs import counted_devices
from r3cnn.cli.processes import LOG_FILE
from r3cnn.cli.ranks import is_one_of_several
from r3cnn.run_files import RESULT, read_json

log = logging.getLogger(__name__)


def plan(
    loader: ConfigLoader, sweep: DictConfig, job_overrides: Sequence[Sequence[str]], *, is_local: bool
) -> list[Job]:
    """Composes and checks all jobs of a sweep.

    Args:
        loader: Hydra's.
        sweep: Configuration of the sweep, with Hydra's part.
        job_overrides: What the sweeper chose for each job.
        is_local: Whether the jobs run on this machine, with its files and devices.

    Raises:
        CompactHydraException: Naming every job that cannot run, with the reason, or when this process is a rank.
    """
    if is_one_of_several(os.environ):
        raise CompactHydraException(
            "a sweep starts the ranks of its jobs itself: start it once, without torchrun or srun"
        )
    jobs, problems = [], []
    for overrides in job_overrides:
        try:
            jobs.append(_checked(loader, sweep, overrides, is_local))
        except (ValueError, OSError, OmegaConfBaseException) as error:
            problems.append(f"{' '.join(overrides)}: {message_for_user(error) or error}")
    if problems:
        raise CompactHydraException("\n- ".join(["nothing was started, since these jobs cannot run:", *problems]))
    return jobs


def _checked(loader: ConfigLoader, sweep: DictConfig, overrides: Sequence[str], is_local: bool) -> Job:
    """A job that can run, as far as can be told: first what needs no data, then whether there are any.

    On this machine its devices are counted now: how many ranks share the images is part of what it is.
    """
    from r3cnn.cli.job_checks import check_gpus, check_job, check_lengths  # with torch, which takes seconds

    config = loader.load_sweep_config(sweep, list(overrides))
    with known_to_hydra(config):
        task = task_config(config)
        check_job(task)
        _check_resume(task.resume, overwrite=task.overwrite)
        missing = missing_annotations(task)
        if not missing:
            check_lengths(task)
    if missing and is_local:
        raise ValueError(missing)
    if is_local:
        check_gpus(task)
    if missing:
        log.warning("%s", missing)
    if is_local and task.trainer.devices == AUTO:
        with read_write(config), read_write(config.hydra):
            config.trainer.devices = counted_devices(task)
            config.hydra.overrides.task.append(f"trainer.devices={config.trainer.devices}")
    return job_of(config)


def _check_resume(resume: str | None, *, overwrite: bool) -> None:
    if overwrite:
        raise ValueError(
            "overwrite is true: the jobs of a sweep go on with what lies in their own folders; remove those"
        )
    if resume not in (None, AUTO):
        raise ValueError(
            f"resume is {resume}: the jobs of a sweep go on with what lies in their own folders; init=… starts them "
            "from given weights"
        )


def missing_annotations(config: DictConfig) -> str | None:
    """What is wrong where data lack a file of annotations that nothing makes; None if all is there.

    Args:
        config: Composed configuration of one run, checked.
    """
    data = config.data
    for split in ("train", "val") if data.prepare is None else ():
        if data[split] is None:
            continue
        path = Path(data.root).expanduser() / Path(data[split].annotations).expanduser()
        if not path.is_file():
            name = data[split].annotations
            return f"data.{split}.annotations is {name}: there is no {path.absolute()}; data.root says where to look"
    return None


def unfinished(jobs: Sequence[Job]) -> list[Job]:
    """The jobs to run: those without a result, one for each folder."""
    for job in jobs:
        if job.is_finished:
            log.info("finished already: %s", job.folder)
    return list({job.folder: job for job in jobs if not job.is_finished}.values())


def returned(jobs: Sequence[Job], failures: Mapping[Path, str], shown_lines: int) -> list[JobReturn]:
    """What the sweeper is told, one for each job: mask AP, or why there is none. Reports the failed ones in the log.

    Args:
        jobs: The jobs of the sweep.
        failures: Folder of each job that failed, with the reason.
        shown_lines: Lines from the end of a failed job's log in the report.
    """
    for folder, reason in failures.items():
        log.error("%s: %s\n%s", folder, reason, tail(folder / LOG_FILE, shown_lines))
    message = f"{len(failures)} of {len({job.folder for job in jobs})} jobs failed: {', '.join(map(str, failures))}"
    found = []
    for job in jobs:
        has_failed = job.folder in failures
        result = (_FailedJob if has_failed else JobReturn)(job.overrides, task_config(job.config))
        result.task_name, result.working_dir = job.name, str(job.folder)
        result.status = JobStatus.FAILED if has_failed else JobStatus.COMPLETED
        result._return_value = JobsFailed(message) if has_failed else mask_ap(job.folder / RESULT)
        found.append(result)
    return found


class _FailedJob(JobReturn):
    """Raises its error without a line of Hydra's on stderr, which would name the first failed job alone."""

    @property  # type: ignore[misc]  # nobody sets it
    def return_value(self) -> float:
        raise self._return_value


class _Masks(msgspec.Struct):
    mask: dict[str, float | None]


class _Result(msgspec.Struct):
    metrics: _Masks


def mask_ap(path: Path) -> float:
    """Mask AP in ``result.json``; 0, the lowest, where it is undefined, since a search needs a number."""
    try:
        value = read_json(path, _Result).metrics.mask["ap"]
    except (OSError, ValueError, KeyError):  # of another version of r3cnn
        value = None
    if value is None:
        log.warning("%s has no mask AP, which counts as 0 in a search", path)
    return float(value or 0.0)


def tail(path: Path, count: int) -> str:
    """The last lines of a text file, indented."""
    if not path.is_file():
        return f"    (no {path.name})"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    return "\n".join(f"    {line}" for line in lines)
