"""Optimizer and learning-rate schedule, as in the authors' released configuration."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from r3cnn.ranges import check_range

log = logging.getLogger(__name__)
MilestoneUnit = Literal["epoch", "step", "fraction"]


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer and the batch that its learning rate is declared for.

    Attributes:
        factory: Called with the trainable parameters and ``lr``.
        lr: Learning rate > 0 for ``base_images`` images per step.
        base_images: Images per step that ``lr`` is declared for; the rate is scaled linearly to the real global batch
            (Goyal et al., arXiv 1706.02677, section 2.1).
    """

    factory: Callable[..., Optimizer]
    lr: float
    base_images: int

    def __post_init__(self) -> None:
        check_range("(0, inf)", lr=self.lr)
        check_range("[1, inf)", base_images=self.base_images)

    def scaled_lr(self, images_per_step: int) -> float:
        """Learning rate for ``images_per_step`` images on all ranks and accumulated batches together."""
        return self.lr * images_per_step / self.base_images

    def build(self, parameters: Iterable[nn.Parameter], images_per_step: int) -> Optimizer:
        """Optimizer over the trainable ones of ``parameters``."""
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        lr = self.scaled_lr(images_per_step)
        log.info("learning rate %g = %g x %d/%d images per step", lr, self.lr, images_per_step, self.base_images)
        return self.factory(trainable, lr=lr)


@dataclass(frozen=True)
class MultiStepSchedule:
    """Linear warm-up, then a drop at each milestone.

    Attributes:
        milestones: Where the rate drops, ascending, in ``unit``.
        unit: ``epoch``, ``step`` (of the optimizer) or ``fraction`` of the whole run.
        factor: Factor of each drop, in (0, 1].
        warmup_steps: Optimizer steps of the warm-up; cut to ``warmup_share`` of a short run.
        warmup_start: Factor at step 0, in (0, 1].
        warmup_share: Largest part of the run that the warm-up may take, in [0, 1], of its steps and of its time.

    Raises:
        ValueError: For values out of range or milestones out of order.
    """

    milestones: Sequence[float]
    unit: MilestoneUnit
    factor: float
    warmup_steps: int
    warmup_start: float
    warmup_share: float

    def __post_init__(self) -> None:
        check_range("[0, 1]" if self.unit == "fraction" else "[0, inf)", milestones=self.milestones or None)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must be ascending, got {list(self.milestones)}")
        check_range("(0, 1]", factor=self.factor, warmup_start=self.warmup_start)
        check_range("[0, inf)", warmup_steps=self.warmup_steps)
        check_range("[0, 1]", warmup_share=self.warmup_share)

    def multiplier(
        self,
        steps_per_epoch: int,
        total_steps: float,
        time_spent: Callable[[], float] | None = None,
        steps_ahead: int = 0,
    ) -> Callable[[int], float]:
        """Factor of the learning rate as a function of the optimizer step, counted from 0.

        Args:
            steps_per_epoch: Optimizer steps in one epoch.
            total_steps: Optimizer steps of the run; infinite when only time limits it.
            time_spent: Gives the part of the run's time that is over, in [0, 1], the same on all ranks; asked only
                while the steps say warm-up. None without a limit of time.
            steps_ahead: Steps that a run has made beyond ``steps_per_epoch`` of each epoch, since it was resumed with
                another batch; milestones in epochs stay where they are in epochs.

        Raises:
            ValueError: For milestones in fractions of a run without a known length.
        """
        if self.unit == "fraction" and not math.isfinite(total_steps):
            raise ValueError("lr_schedule.unit=fraction needs trainer.max_steps or trainer.max_epochs")
        per_unit = {"epoch": steps_per_epoch, "step": 1, "fraction": total_steps}[self.unit]
        ahead = steps_ahead if self.unit == "epoch" else 0
        drops = [round(milestone * per_unit) + ahead for milestone in self.milestones]
        warmup = min(self.warmup_steps, total_steps * self.warmup_share) if self.warmup_share > 0 else 0

        def at(step: int) -> float:
            decay = self.factor ** sum(step >= drop for drop in drops)
            if step >= warmup:
                return decay
            progress = step / warmup
            if time_spent is not None:
                progress = max(progress, min(1.0, time_spent() / self.warmup_share))
            return decay * (1 - (1 - progress) * (1 - self.warmup_start))

        return at
