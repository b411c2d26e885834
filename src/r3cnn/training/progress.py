"""Progress of the whole run with the time that is left: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import logging
import math
import sys
import time

import lightning
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from r3cnn.ranges import check_range
from r3cnn.training.measurements import GIB, peak_memory
from r3cnn.training.module import TrainingModule

log = logging.getLogger(__name__)
MEASURED_STEPS = 10  # after which the first forecast is made, or after half of a shorter run


class RunProgress(ProgressBar):
    """Counts optimizer steps of the run and batches of an evaluation.

    After the first steps, and once more after the first validation, a line says how many hours are left and how much
    memory the run has taken.

    Args:
        seconds_between_lines: When the output is not a terminal, a line is logged at most this often.
    """

    def __init__(self, seconds_between_lines: float) -> None:
        check_range("[0, inf]", seconds_between_lines=seconds_between_lines)
        super().__init__()
        self.seconds_between_lines = seconds_between_lines
        self._enabled = True
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._clock = RunClock(0, math.inf)
        self._last_line = -math.inf
        self._forecast = Forecast(0, 0)

    def disable(self) -> None:
        """Shows nothing; Lightning calls it on every rank but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Shows something again."""
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clock of the run."""
        total = pl_module.total_steps if isinstance(pl_module, TrainingModule) else trainer.estimated_stepping_batches
        self._begin(trainer.global_step, total)
        self._forecast = Forecast(trainer.global_step, total)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Shows the step, the loss and the time left."""
        if self._enabled and self._forecast.note_step(trainer.global_step):
            self._foretell(trainer, pl_module)
        if not self._enabled or not self._is_due():
            return
        loss = trainer.progress_bar_metrics.get("train/loss", math.nan)
        self._show(f"epoch {trainer.current_epoch + 1}", trainer.global_step, f"loss {float(loss):.3f}")

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Closes the bar."""
        self._end()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Gives the terminal back."""
        self._end()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clock of an evaluation."""
        self._forecast.start_validation()
        if trainer.state.fn != "fit":
            self._begin(0, sum(trainer.num_val_batches))

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Shows how far the evaluation is."""
        if trainer.state.fn != "fit" and self._enabled and self._is_due():
            self._show("evaluation", batch_idx + 1, "")

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Closes the bar of an evaluation that is not part of training."""
        if trainer.state.fn != "fit":
            self._end()
        elif self._forecast.end_validation() and self._enabled:
            self._foretell(trainer, pl_module)

    def _foretell(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        steps_between = math.inf
        if trainer.enable_validation and isinstance(trainer.val_check_batch, int):
            batches, every = float(trainer.val_check_batch), trainer.check_val_every_n_epoch
            if every is not None:
                batches = every * trainer.num_training_batches / (trainer.num_training_batches // batches)
            steps_between = batches / trainer.accumulate_grad_batches
        memory = peak_memory(module)
        used = f"peak memory {memory / GIB:.2f} GiB a rank" if memory else "peak memory unknown"
        log.info("%s; %s", self._forecast.describe(trainer.global_step, steps_between), used)

    def _begin(self, done: int, total: float) -> None:
        self._clock = RunClock(done, total)
        self._last_line = time.monotonic()
        if self._enabled and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[status]}"))
            self._bar = Progress(*columns, console=Console(stderr=True))
            length = total if math.isfinite(total) else None
            self._task = self._bar.add_task("", total=length, completed=done, status="")
            self._bar.start()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last_line < (0.2 if self._bar is not None else self.seconds_between_lines):
            return False
        self._last_line = now
        return True

    def _show(self, what: str, done: int, extra: str) -> None:
        status = "  ".join(part for part in (self._clock.describe(done), extra) if part)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=what, completed=done, status=status)
        else:
            log.info("%s  %s", what, status)


class Forecast:
    """Time that a run has yet to take: its steps, and its validations once one has been seen.

    Args:
        start: Steps that were done before.
        total: Steps of the whole run; infinite if unknown.
    """

    def __init__(self, start: int, total: float) -> None:
        self.total = total
        self._start, self._first = start, math.inf  # the first step, which is slower, and its end
        self._wanted = start + 1 + min(MEASURED_STEPS, max(1, (total - start) / 2 - 1))
        self._seconds_per_step = self._validation = math.nan
        self._pauses = self._paused_at = 0.0

    def note_step(self, step: int) -> bool:
        """Notes the end of a step; whether it is time for the first forecast."""
        now = time.monotonic() - self._pauses
        if step > self._start and math.isinf(self._first):
            self._start, self._first = step, now
        elif math.isnan(self._seconds_per_step) and self._wanted <= step < self.total:
            self._seconds_per_step = (now - self._first) / (step - self._start)
            return True
        return False

    def start_validation(self) -> None:
        """Training pauses."""
        self._paused_at = time.monotonic()

    def end_validation(self) -> bool:
        """Training goes on; whether it is time for another forecast."""
        is_first, took = math.isnan(self._validation), time.monotonic() - self._paused_at
        self._validation = took
        self._pauses += took
        return is_first and not math.isnan(self._seconds_per_step)

    def describe(self, step: int, steps_between: float) -> str:
        """``about 2.31 h to the end: 6.9 s per step (1180 left), 31 s per validation (12 left)``.

        Args:
            step: Steps that are done.
            steps_between: Steps from one validation to the next one; infinite without validation.
        """
        speed = f"{self._seconds_per_step:.2g} s per step"
        if not math.isfinite(self.total):
            return speed
        left = int(self.total - step)
        seconds, count = left * self._seconds_per_step, math.ceil(left / steps_between)
        speed += f" ({left} left)"
        if math.isnan(self._validation) and count:
            speed += f", without validations ({count} left)"
        elif count:
            seconds += count * self._validation
            speed += f", {self._validation:.2g} s per validation ({count} left)"
        return f"about {seconds / 3600:.2f} h to the end: {speed}"


class RunClock:
    """Speed and time left of a run.

    Args:
        start: Steps that were done before the clock started (a resumed run).
        total: Steps of the whole run; infinite if unknown.
    """

    def __init__(self, start: int, total: float) -> None:
        self.start = start
        self.total = total
        self._began = time.monotonic()

    def describe(self, done: int) -> str:
        """``120/1000  2.1 it/s  ETA 0:06:59``."""
        speed = (done - self.start) / max(time.monotonic() - self._began, 1e-9)
        if not math.isfinite(self.total):
            return f"{done}  {speed:.2f} it/s"
        if speed == 0:
            return f"{done}/{int(self.total)}"
        return f"{done}/{int(self.total)}  {speed:.2f} it/s  ETA {_clock_time((self.total - done) / speed)}"


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
