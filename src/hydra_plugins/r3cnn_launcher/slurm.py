"""Launcher ``r3cnn_slurm``: jobs as jobs of SLURM.

Hydra imports this module whenever a Hydra program starts, so it imports nothing that takes time, nor may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore

from hydra_plugins.r3cnn_launcher.local import LocalLauncher

if TYPE_CHECKING:
    from r3cnn.cli.jobs import Job

TARGET = {"_target_": "hydra_plugins.r3cnn_launcher.slurm.SlurmLauncher"}
ConfigStore.instance().store(group="hydra/launcher", name="r3cnn_slurm", node=TARGET, provider="r3cnn")


class SlurmLauncher(LocalLauncher):
    """Submits every job of a sweep as a job of SLURM and waits for all of them.

    Settings are those of hydra-submitit-launcher, and submitit submits; that plugin's own ``launch`` would wait
    for ever for a job that is killed where SLURM keeps no accounts, stop at the first failed one, and leave all in the
    queue at Ctrl-C.
    """

    is_local = False

    def run_jobs(self, jobs: Sequence[Job]) -> Mapping[Path, str]:
        """Submits jobs and waits; gives the folder of each that failed, with the reason."""
        from r3cnn.cli.slurm_jobs import run_on_slurm

        return run_on_slurm(jobs, self.config.launcher)
