"""Ranks on this machine that one process starts, which end together."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import lightning
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from r3cnn.cli.ranks import OF_A_SWEEP
from r3cnn.end_signals import KILLED

POLL_SECONDS = 0.5
WAIT_SECONDS = 10.0  # for a rank to notice by itself that another one has ended


class RankLauncher(_SubprocessScriptLauncher):
    """Starts the further ranks of this node; when one fails, the others follow, and the program has its exit status.

    Lightning's own kills this process as well, whose status then says nothing, and leaves ranks alone that lose it.
    """

    def launch(
        self, function: Callable[..., object], *args: object, trainer: lightning.Trainer | None = None, **kwargs: object
    ) -> object:
        """Starts the ranks, if they do not run yet, and calls a function.

        Args:
            function: Function.
            args: Its arguments.
            trainer: Not needed; Lightning passes it.
            kwargs: Further arguments of the function.
        """
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ.setdefault(OF_A_SWEEP, str(os.getpid()))  # they die with this process
            self._call_children_scripts()
            threading.Thread(target=self._watch, daemon=True).start()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        except BaseException:
            self._wait()  # they may have the reason still to say
            raise

    def _wait(self) -> None:
        """Lets the further ranks end, and names one that was killed and could not say so."""
        deadline = time.monotonic() + WAIT_SECONDS / 2
        for process in self.procs:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for rank, process in enumerate(self.procs, start=1):
            if process.returncode is not None and process.returncode < 0:
                print(f"r3cnn: rank {rank} was ended by signal {-process.returncode}", file=sys.stderr, flush=True)

    def _watch(self) -> None:
        """Ends this process, if it goes on for long though a rank has failed: it may wait for it for ever."""
        while not any(process.poll() for process in self.procs):
            if all(process.returncode == 0 for process in self.procs):
                return
            time.sleep(POLL_SECONDS)
        time.sleep(WAIT_SECONDS)
        rank, status = next((rank, each.returncode) for rank, each in enumerate(self.procs, start=1) if each.returncode)
        print(f"r3cnn: rank {rank} has ended with status {status}: the others end too", file=sys.stderr, flush=True)
        for process in self.procs:
            process.kill()
        os._exit(status if status > 0 else KILLED - status)


class RankStrategy(DDPStrategy):
    """Data parallel training on ranks that end together."""

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = RankLauncher(self.cluster_environment, self.num_processes, self.num_nodes)
