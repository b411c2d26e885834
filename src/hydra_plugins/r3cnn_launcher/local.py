"""Launcher ``r3cnn_local``: jobs as processes of this machine.

Hydra imports this module whenever a Hydra program starts, so it imports nothing that takes time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from r3cnn.cli.jobs import Job

# Settings stand in the group `launcher` of the configuration, not here.
TARGET = {"_target_": "hydra_plugins.r3cnn_launcher.local.LocalLauncher"}
ConfigStore.instance().store(group="hydra/launcher", name="r3cnn_local", node=TARGET, provider="r3cnn")


class LocalLauncher(Launcher):
    """Runs every job of a sweep as a plain run in a process group of its own."""

    is_local = True  # whether jobs see the files that this process sees

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Takes what a sweeper knows."""
        self.loader = hydra_context.config_loader
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs one batch of jobs; finished ones are skipped, interrupted ones go on.

        Args:
            job_overrides: What the sweeper chose for each job.
            initial_job_idx: Number of jobs before this batch.
        """
        from r3cnn.cli.sweep import plan, returned, unfinished

        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        jobs = plan(self.loader, self.config, job_overrides, is_local=self.is_local)
        failures = self.run_jobs(unfinished(jobs))
        return returned(jobs, failures, self.config.launcher.shown_lines)

    def run_jobs(self, jobs: Sequence[Job]) -> Mapping[Path, str]:
        """Runs jobs; gives the folder of each that failed, with the reason."""
        from r3cnn.cli.local_jobs import run_locally

        return run_locally(jobs, self.config.launcher)
