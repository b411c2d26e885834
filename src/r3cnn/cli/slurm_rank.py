"""What submitit runs in every task of a SLURM job: the one plain run, as a process of its own.

Which rank it is, of how many, and where they meet, Lightning reads in what srun sets, on one node as on several. With
torch's variables, which submitit can set, Lightning would still believe SLURM's; and submitit would hide all GPUs but
one from a rank, where Lightning picks its own among those of the node.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from r3cnn.cli.processes import LOG_FILE
from r3cnn.end_signals import KILLED


def run_rank(arguments: tuple[str, ...], folder: Path) -> None:
    """Runs ``r3cnn`` with ``arguments``.

    Args:
        arguments: Words after ``r3cnn``.
        folder: Folder of the run, where ``job.log`` takes what all ranks print.

    Raises:
        SystemExit: With the status of the run, if it is not 0.
    """
    # SLURM's warning goes to this process as well, and to the run before it listens: it waits for it there.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_FILE).open("ab") as output:
        status = subprocess.run(
            [sys.executable, "-P", "-m", "r3cnn", *arguments],
            env={**os.environ, "OMP_NUM_THREADS": threads_in(os.environ)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    if status != 0:
        raise SystemExit(status if status > 0 else KILLED - status)


def threads_in(environment: Mapping[str, str]) -> str:
    """``OMP_NUM_THREADS`` of a rank: the CPUs that SLURM gave it, else what the profile of the cluster says, else 1."""
    return environment.get("SLURM_CPUS_PER_TASK") or environment.get("OMP_NUM_THREADS") or "1"
