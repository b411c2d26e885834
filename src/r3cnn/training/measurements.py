"""How fast a run is and how much memory it takes, measured while it runs and without making it wait."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from r3cnn.batch import Batch
from r3cnn.process_memory import peak_bytes
from r3cnn.ranges import check_range
from r3cnn.training.module import EvaluationModule

GIB = 2**30
MICROSECONDS = 1_000_000


@dataclass
class Stopwatch:
    """Images and seconds of the intervals between the ends of successive batches.

    The first ``warm_up`` intervals count for nothing, nor does one in which something else happened.

    Attributes:
        warm_up: Intervals that are still to be left out.
        images: Counted so far.
        seconds: Likewise.
        since: When the open interval began; None for one that is not to count.
    """

    warm_up: int
    images: int = 0
    seconds: float = 0.0
    since: float | None = None

    def start(self) -> None:
        """An interval begins now."""
        self.since = time.perf_counter()

    def interrupt(self) -> None:
        """The open interval counts for nothing; the next one begins with the end of a batch."""
        self.since = None

    def end_batch(self, images: int) -> None:
        """Ends an interval and begins the next one."""
        now = time.perf_counter()
        if self.since is not None and self.warm_up > 0:
            self.warm_up -= 1
        elif self.since is not None:
            self.images += images
            self.seconds += now - self.since
        self.since = now


@dataclass(frozen=True)
class Totals:
    """What was measured on all ranks.

    Attributes:
        images: Sum.
        seconds: Of the slowest rank.
        memory: Bytes on the rank that took most; 0 where it cannot be told.
    """

    images: int = 0
    seconds: float = 0.0
    memory: int = 0

    @property
    def images_per_second(self) -> float | None:
        """None where nothing was measured."""
        return self.images / self.seconds if self.seconds > 0 else None

    def after(self, earlier: Totals) -> Totals:
        """The same with what was measured before a resume."""
        memory = max(self.memory, earlier.memory)
        return Totals(self.images + earlier.images, self.seconds + earlier.seconds, memory)


class Measurements(Callback):
    """Measures and logs images per second in training and evaluation, and the memory that training takes.

    Training is measured from the end of a step to the end of the next one: waiting for data counts, an interval with a
    validation or a checkpoint in it does not. Evaluation is measured from the image files to the detections of every
    loop, without the scoring. Ranks come together only where training pauses anyway. On a GPU memory is what torch has
    allocated during training, else what the whole process holds, validation included.

    Args:
        warm_up_steps: Training steps that are not measured, at the beginning and after a resume.
        warm_up_batches: Likewise for the batches of each evaluation.

    Attributes:
        training: Measured in training, before a resume as well.
        evaluation: Measured in the last evaluation.

    Raises:
        ValueError: For a negative number.
    """

    def __init__(self, warm_up_steps: int, warm_up_batches: int) -> None:
        check_range("[0, inf)", warm_up_steps=warm_up_steps, warm_up_batches=warm_up_batches)
        self.warm_up_steps, self.warm_up_batches = warm_up_steps, warm_up_batches
        self.training, self.evaluation = Totals(), Totals()
        self._earlier, self._earlier_total = Totals(), 0.0
        self._watch, self._evaluation_watch = Stopwatch(warm_up_steps), Stopwatch(warm_up_batches)
        self._memory, self._world, self._began = 0, 1, time.perf_counter()

    @property
    def total_seconds(self) -> float:
        """Since the beginning of the fit, validations and what came before a resume included."""
        return self._earlier_total + time.perf_counter() - self._began

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Starts the clock of the whole run."""
        self._watch, self._memory = Stopwatch(self.warm_up_steps), 0
        self._world, self._began = trainer.world_size, time.perf_counter()
        _forget_peak(pl_module)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Counts a step."""
        self._watch.end_batch(len(batch))

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Brings the ranks together and logs training so far."""
        self._memory = max(self._memory, peak_memory(pl_module))
        self.training = _together(pl_module, self._watch, self._memory).after(self._earlier)
        speed, memory = self.training.images_per_second, self.training.memory
        pl_module.log("speed/train_images_per_second", math.nan if speed is None else speed)
        pl_module.log("memory/peak_gib", memory / GIB if memory else math.nan)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Training pauses, evaluation begins."""
        self._watch.interrupt()
        self._memory = max(self._memory, peak_memory(pl_module)) if trainer.state.fn == "fit" else self._memory
        self._evaluation_watch = Stopwatch(self.warm_up_batches)
        self._evaluation_watch.start()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts a batch, unless it only stands in for one that this rank does not have."""
        is_stand_in = cast(EvaluationModule, pl_module).handed_out == ()
        self._evaluation_watch.end_batch(0 if is_stand_in else len(batch))

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Brings the ranks together and logs this evaluation."""
        self.evaluation = _together(pl_module, self._evaluation_watch, 0)
        speed = self.evaluation.images_per_second
        pl_module.log("speed/eval_images_per_second", math.nan if speed is None else speed)
        if trainer.state.fn == "fit":
            _forget_peak(pl_module)

    def state_dict(self) -> dict[str, float]:
        """What a resumed run goes on from, as the rank that writes it sees it: ranks have equally many images."""
        self._watch.interrupt()
        mine = Totals(self._watch.images * self._world, self._watch.seconds, self._memory).after(self._earlier)
        return {**asdict(mine), "total": self.total_seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Goes on from there."""
        images, memory = int(state_dict["images"]), int(state_dict["memory"])
        self._earlier, self._earlier_total = Totals(images, state_dict["seconds"], memory), state_dict["total"]
        self.training = self._earlier  # of a run that has nothing left to train


def _together(module: lightning.LightningModule, watch: Stopwatch, memory: int) -> Totals:
    """The same on every rank; integers, so that nothing is rounded on the way."""
    mine = torch.tensor([watch.images, round(watch.seconds * MICROSECONDS), memory], device=module.device)
    images, seconds, bytes_ = cast(torch.Tensor, module.all_gather(mine)).reshape(-1, 3).T.tolist()
    return Totals(sum(images), max(seconds) / MICROSECONDS, max(bytes_))


def peak_memory(module: lightning.LightningModule) -> int:
    """Bytes that torch has allocated on the GPU, else that this process holds; 0 where it cannot be told."""
    if module.device.type == "cuda":
        return torch.cuda.max_memory_allocated(module.device)
    try:
        return peak_bytes()
    except OSError:  # not Linux
        return 0


def _forget_peak(module: lightning.LightningModule) -> None:
    if module.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(module.device)
