"""Jobs of a sweep on this machine."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import CompactHydraException
from omegaconf import DictConfig, ListConfig

from r3cnn.cli.jobs import AUTO, Job
from r3cnn.cli.processes import Call, run_calls
from r3cnn.cli.ranks import OF_A_SWEEP, for_jobs
from r3cnn.run_files import RESULT

log = logging.getLogger(__name__)


def run_locally(jobs: Sequence[Job], settings: DictConfig) -> dict[Path, str]:
    """Runs jobs as processes of this machine.

    Args:
        jobs: Jobs in folders of their own.
        settings: The ``launcher`` node of the sweep's configuration.

    Returns:
        Folder of each job that failed, with the reason.

    Raises:
        CompactHydraException: Before anything is started, when the jobs do not fit the launcher or the machine.
    """
    failures: dict[Path, str] = {}

    def note_end(call: Call, status: int) -> None:
        if status != 0:
            failures[call.folder] = f"ended with status {status}"
        elif not (call.folder / RESULT).is_file():
            failures[call.folder] = f"ended without {RESULT}"
        log.info("%s: %s", "failed" if call.folder in failures else "finished", call.folder)

    for job in jobs:
        _check_ranks(job, settings.ranks)
    calls = [
        Call(" ".join(job.overrides), _command(job, settings.ranks), _environment(job, settings), job.folder)
        for job in jobs
    ]
    needed = max((ranks_of(job) for job in jobs if job.config.trainer.accelerator != "cpu"), default=0)
    places = places_for(settings.parallel, needed, visible_gpus() if needed else [])
    run_calls(calls, places=places, grace_seconds=settings.grace_seconds, on_end=note_end)
    return failures


def _check_ranks(job: Job, ranks: int | None) -> None:
    if ranks is None:
        return
    if ranks_of(job) != ranks or job.config.trainer.num_nodes != 1:
        nodes, devices = job.config.trainer.num_nodes, job.config.trainer.devices
        raise CompactHydraException(
            f"launcher.ranks is {ranks}, but trainer.devices is {devices} and trainer.num_nodes {nodes}: launcher=ddp "
            "sets the devices itself, on one node"
        )


def ranks_of(job: Job) -> int:
    """Processes of one job on this machine; 1 where the devices are found when it runs."""
    devices = job.config.trainer.devices
    if isinstance(devices, ListConfig):
        return len(devices)
    return devices if isinstance(devices, int) and devices > 0 else 1


def visible_gpus() -> list[str]:
    """Names of the GPUs that jobs may use, as CUDA_VISIBLE_DEVICES has them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    from torch.cuda import device_count

    return [str(index) for index in range(device_count())]


def counted_devices(config: DictConfig) -> int | str:
    """What ``trainer.devices=auto`` comes to for a job on this machine, as Lightning would count them."""
    from torch.cuda import is_available

    return devices_for(config.trainer.accelerator, config.launcher.parallel, visible_gpus() if is_available() else [])


def devices_for(accelerator: str, parallel: int, gpus: Sequence[str]) -> int | str:
    """What ``trainer.devices=auto`` comes to for one of the jobs that run at the same time.

    Args:
        accelerator: Value of ``trainer.accelerator``.
        parallel: Jobs at a time.
        gpus: Names of the GPUs; none where there is no GPU.
    """
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        return AUTO
    return 1 if accelerator == "cpu" else max(1, len(gpus) // parallel)


def places_for(parallel: int, ranks: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Deals GPUs out to jobs that run at the same time.

    Args:
        parallel: Jobs at a time.
        ranks: Most processes of a job that want a GPU each.
        gpus: Names of the GPUs.

    Returns:
        Environment variables of each job at a time; none where one job has all GPUs, or there is no GPU.

    Raises:
        CompactHydraException: When there are too few GPUs.
    """
    if parallel == 1 or not gpus:
        return [{} for _ in range(parallel)]
    if parallel * ranks > len(gpus):
        raise CompactHydraException(
            f"launcher.parallel is {parallel}, each job has up to {ranks} ranks, and there are {len(gpus)} GPUs: "
            f"at most {len(gpus) // ranks} jobs at a time are possible"
        )
    share = len(gpus) // parallel
    return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[k * share : (k + 1) * share])} for k in range(parallel)]


def _command(job: Job, ranks: int | None) -> tuple[str, ...]:
    program = ("-m", "r3cnn", *job.arguments)
    if ranks is None:
        return (sys.executable, "-P", *program)
    alone = ("--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(ranks))
    return (sys.executable, "-P", "-m", "r3cnn.cli.torchrun", *alone, *program)


def _environment(job: Job, settings: DictConfig) -> dict[str, str]:
    environment = for_jobs(os.environ)
    processes = settings.parallel * ranks_of(job)
    threads = max(1, len(os.sched_getaffinity(0)) // processes)
    if settings.threads is not None:
        environment["OMP_NUM_THREADS"] = str(settings.threads)
    return {"OMP_NUM_THREADS": str(threads), **environment, OF_A_SWEEP: str(os.getpid())}
