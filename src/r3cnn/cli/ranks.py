"""Which rank this process is, as launchers say it in the environment, and environments that say nothing about it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence

# Of torchrun, of Lightning's own launcher (which takes them for an outer launcher's when it finds them), of MPI, and of
# SLURM and LSF, in whose allocations Lightning would wait for tasks that nobody starts.
NAMES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME"),
)
PREFIXES = ("TORCHELASTIC_", "SLURM_", "SLURMD_", "PMI_", "PMIX_", "OMPI_COMM_WORLD_", "LSB_", "JSM_NAMESPACE_")
# Name a run of Weights & Biases, into which all jobs of a sweep would write, or the process that serves one.
OF_ONE_RUN = ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_SERVICE")
OF_A_SWEEP = "R3CNN_SWEEP"  # set for the processes of a sweep's jobs: id of the process that started the sweep
PR_SET_PDEATHSIG = 1  # of prctl(2)
INIT = 1  # process that takes over those whose parent has died
GLOBAL_SIZES = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")  # a batch script has SLURM_NTASKS, though it runs once
GLOBAL_RANKS = ("RANK", "SLURM_PROCID")  # in the order in which they are believed; a local rank is the last resort

INTERACTIVE_JOBS = ("bash", "interactive")  # names of jobs that Lightning takes for no jobs of SLURM


def is_of_one_process(name: str) -> bool:
    """Whether an environment variable tells a process its place among the ranks of a job, or which run it is."""
    return name in NAMES or name in OF_ONE_RUN or name.startswith(PREFIXES)


def for_jobs(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for jobs, which are neither ranks of what started them nor the same run."""
    return {name: value for name, value in environment.items() if not is_of_one_process(name)}


def rank_in(environment: Mapping[str, str]) -> int:
    """Rank among all processes of the job; 0 for one that stands alone."""
    for name in (*GLOBAL_RANKS, "LOCAL_RANK"):
        if environment.get(name, "").isdigit():
            return int(environment[name])
    return 0


def job_in(environment: Mapping[str, str]) -> str | None:
    """What the ranks of one job have in common and no other job has; None where the launcher does not tell."""
    if "TORCHELASTIC_RUN_ID" in environment:
        names: tuple[str, ...] = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    elif "SLURM_STEP_ID" in environment and is_one_of_several(environment):
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    else:
        return None
    return " ".join(environment.get(name, "") for name in names)


def is_first_on_node(environment: Mapping[str, str]) -> bool:
    """Whether no other process of the job on this machine has a lower rank."""
    return environment.get("LOCAL_RANK", environment.get("SLURM_LOCALID", "0")) == "0"


def is_one_of_several(environment: Mapping[str, str]) -> bool:
    """Whether somebody else has started further processes of this job, or will."""
    sizes = [environment.get(name, "") for name in GLOBAL_SIZES]
    return rank_in(environment) > 0 or any(size.isdigit() and int(size) > 1 for size in sizes)


def check_tasks(environment: Mapping[str, str], ranks: int) -> None:
    """Refuses to wait for ranks that nobody starts: in a job of SLURM, Lightning leaves that to srun.

    Args:
        environment: Of this process.
        ranks: As many as the trainer is going to wait for.

    Raises:
        ValueError: When SLURM has started fewer processes.
    """
    is_of_slurm = "SLURM_NTASKS" in environment and environment.get("SLURM_JOB_NAME") not in INTERACTIVE_JOBS
    if not is_of_slurm or "LOCAL_RANK" in environment:  # torchrun has started them
        return
    is_by_srun = "SLURM_STEP_NUM_TASKS" in environment
    started = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    needed = ranks if is_by_srun else max(ranks, int(environment["SLURM_NTASKS"]))
    if needed > started:
        raise ValueError(
            f"{needed} ranks are asked for, by trainer.devices and num_nodes or by sbatch, but SLURM has started "
            f"{started}: `srun r3cnn …` in the batch script starts one per task, sbatch --ntasks-per-node says how many"
        )


def overrides_of_rank(environment: Mapping[str, str], overrides: Sequence[str]) -> list[str]:
    """Overrides by which all but the first rank of a job write no log file, and warn at most.

    Args:
        environment: Of this process.
        overrides: Those of the job.

    Raises:
        ValueError: When each rank would make a folder of its own.
    """
    if not is_one_of_several(environment):
        return []
    if not any(each.startswith(("output_dir=", "hydra.run.dir=")) for each in overrides):
        raise ValueError(
            "output_dir is not on the command line, but this process is one of several ranks: name it, since each "
            "rank would make a folder of its own"
        )
    if rank_in(environment) == 0:
        return []
    logging = () if any(each.startswith("hydra/job_logging=") for each in overrides) else ("hydra/job_logging=stdout",)
    return [*logging, "hydra.job_logging.root.level=WARNING"]


def end_with_parent() -> None:
    """Lets the operating system kill this process when the one that started it dies, however it dies.

    torchrun starts ranks in sessions of their own, so that they would outlive it. Linux alone can do this; elsewhere
    ranks whose launcher is killed without being asked to end may stay.

    Raises:
        SystemExit: When it has died already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if _has_lost_its_sweep(os.environ.get(OF_A_SWEEP, "")):  # before it could ask for that
        raise SystemExit("the sweep that started this process has ended")


def _has_lost_its_sweep(sweep: str) -> bool:
    try:
        os.kill(int(sweep), 0)
    except (ProcessLookupError, ValueError):
        return True
    except PermissionError:
        pass
    return os.getppid() == INIT and sweep != str(INIT)  # in a container the sweep itself may be that
