"""A callback that tells its own process to leave, at a place that a test chooses."""

from __future__ import annotations

import os
import signal

import lightning
from lightning.pytorch.callbacks import Callback


class Alarm(Callback):
    """Sends a signal to this process.

    Args:
        name: Of the signal.
        before_step: Number of the optimizer step before which it does so, from 0; -1: never in training.
        before_start: Whether to do so before training begins.
        in_validation: Whether to do so in every validation.
        rank: The rank that does.
    """

    def __init__(
        self,
        name: str = "SIGUSR1",
        before_step: int = -1,
        before_start: bool = False,
        in_validation: bool = False,
        rank: int = 0,
    ) -> None:
        self.signal = signal.Signals[name]
        self.before_step, self.before_start, self.in_validation = before_step, before_start, in_validation
        self.rank = rank

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._ring(trainer, self.before_start)

    def on_train_batch_start(self, trainer: lightning.Trainer, *args: object) -> None:
        self._ring(trainer, trainer.global_step == self.before_step)

    def on_validation_batch_start(self, trainer: lightning.Trainer, *args: object) -> None:
        self._ring(trainer, self.in_validation)

    def _ring(self, trainer: lightning.Trainer, is_time: bool) -> None:
        if is_time and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.signal)


class Failing(Callback):
    """Fails on the second rank before its second step."""

    def on_train_batch_start(self, trainer: lightning.Trainer, *args: object) -> None:
        if trainer.global_rank == 1 and trainer.global_step == 1:
            raise RuntimeError("this rank is the one that failed")
