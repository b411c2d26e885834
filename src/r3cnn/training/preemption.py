"""A run that is told to leave its machine saves itself and, in a SLURM job at SIGUSR1, queues the job again."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn

from r3cnn.batch import Batch
from r3cnn.end_signals import SIGNALS, TO_BE_CONTINUED, status_of
from r3cnn.ranges import check_range
from r3cnn.training.position import reopen_step

log = logging.getLogger(__name__)
JOB = "SLURM_JOB_ID"
PATIENCE_SECONDS = 4.0  # between two questions, where steps are slow


class Preemption(Checkpoint):
    """Leaves at a signal, at a step that all ranks agree on, so that the resumed run equals an undisturbed one.

    Ranks see a signal at different steps, so now and then they ask each other whether anyone has. Then the checkpoint
    is saved, after an optimizer step, within a validation or at the very end of an epoch. Before the next step or the
    validation that is due, which the resumed run makes up, every rank ends: with status 75 at SIGUSR1, once the job is
    queued again, and at SIGTERM, SIGINT and SIGHUP as a process does that they kill. In the final evaluation there is
    nothing to save.

    It counts as a checkpoint callback to have its turn after all others, whose state it saves.

    Args:
        checkpoint: Where the checkpoint goes; the run is resumed from there.
        every_n_steps: Most optimizer steps, or batches of an evaluation, between two questions; at least 1. Where they
            are slow, ranks ask about every `PATIENCE_SECONDS`. A single process looks after every one.

    Raises:
        ValueError: If ``every_n_steps`` is less than 1.
    """

    def __init__(self, checkpoint: str, every_n_steps: int) -> None:
        check_range("[1, inf)", every_n_steps=every_n_steps)
        self.checkpoint = Path(checkpoint)
        self.every_n_steps = every_n_steps
        self._agreed: signal.Signals | None = None
        self._is_saved = False
        self._common_batches = 0
        self._loops: dict[str, object] = {}  # Lightning's counters before the validation under way
        self._ask_often()

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Lets a signal through that what started the job has held back until now."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [TO_BE_CONTINUED])

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """From here on, until the final weights are saved, a signal does not end the process, this callback does."""
        SIGNALS.is_deferred = True
        self._ask_often()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Nobody asks any more."""
        SIGNALS.is_deferred = False

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leaves, if a signal has come after the last question."""
        if self._is_anyone_told(trainer):
            if not self._is_saved:
                self._save(trainer)
            self._leave(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leaves, if the checkpoint was saved at the end of the epoch before."""
        if self._is_saved:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Asks and saves after an epoch and its validation."""
        if self._is_anyone_told(trainer):
            self._save(trainer)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Leaves, if the checkpoint was saved after the step before."""
        if self._is_saved:
            self._leave(trainer)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Asks the other ranks now and then, and saves once they agree."""
        is_step = trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if is_step and self._is_time_to_ask() and self._is_anyone_told(trainer):
            self._save(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leaves, if the checkpoint was saved after the step before; else finds out how long all ranks can ask."""
        if self._is_saved:
            self._leave(trainer)
        count = torch.tensor(sum(int(batches) for batches in trainer.num_val_batches), device=pl_module.device)
        self._common_batches = int(trainer.strategy.reduce(count, reduce_op="min"))
        self._loops = trainer._checkpoint_connector._get_loops_state_dict()
        self._ask_often()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Steps take another time than the batches of a validation."""
        self._ask_often()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Leaves a validation, which the resumed run starts anew."""
        if batch_idx >= self._common_batches or not self._is_time_to_ask() or not self._is_anyone_told(trainer):
            return
        if trainer.state.fn == TrainerFn.FITTING:
            self._save(trainer)
        self._leave(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Lets a checkpoint from within a validation be as one from before it."""
        if trainer.validating and self._agreed is not None:
            checkpoint["loops"] = self._loops
            reopen_step(checkpoint)

    def _ask_often(self) -> None:
        """Lets ranks ask after the next step, by whose time they then know how often."""
        self._interval, self._unasked, self._asked_at = 1, 0, time.monotonic()

    def _is_time_to_ask(self) -> bool:
        self._unasked += 1
        return self._agreed is not None or self._unasked >= self._interval

    def _is_anyone_told(self, trainer: lightning.Trainer) -> bool:
        """Whether any rank is; all of them agree on the signal, and on when to ask again."""
        if self._agreed is not None:
            return True
        number = int(SIGNALS.told or 0)
        if trainer.world_size > 1:
            seconds = max(time.monotonic() - self._asked_at, 1e-6)
            interval = min(self.every_n_steps, int(PATIENCE_SECONDS * self._unasked / seconds))
            asked = torch.tensor([number, -interval], device=trainer.strategy.root_device)
            number, slowest = trainer.strategy.reduce(asked, reduce_op="max").tolist()
            self._ask_often()
            self._interval = max(1, -slowest)
        self._agreed = signal.Signals(number) if number else None
        return self._agreed is not None

    def _save(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self.checkpoint)
        self._is_saved = True

    def _leave(self, trainer: lightning.Trainer) -> None:
        """Ends this rank, once the job is in the queue again: a job that ends before would be over for good.

        Raises:
            SystemExit: Always.
        """
        assert self._agreed is not None
        for logger in trainer.loggers:
            logger.save()
        if trainer.is_global_zero:
            step, name = trainer.global_step, self._agreed.name
            log.info("stopping at step %d on %s; resume=last continues from %s", step, name, self.checkpoint)
        if JOB in os.environ and self._agreed == TO_BE_CONTINUED:
            SIGNALS.ignore()
            trainer.strategy.barrier()
            if trainer.is_global_zero:
                requeue_job()
            trainer.strategy.barrier()
        raise SystemExit(status_of(self._agreed))


def requeue_job() -> None:
    """Queues the SLURM job that this process belongs to again."""
    job = os.environ[JOB]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:  # not every cluster has it on its nodes
        log.error("SLURM job %s could not be requeued: %s", job, error)
        return
    if done.returncode == 0:
        log.info("SLURM job %s is requeued and will continue from here", job)
    else:
        log.error("SLURM job %s could not be requeued: %s", job, done.stderr.strip())
