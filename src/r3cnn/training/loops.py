"""Lightning's training loops, which in a resumed run first finish the step that the checkpoint was written within.

Checkpoints are written at the end of a step, before its numbers are logged and the validation that may be due, at the
end of that validation, or at the end of an epoch. Lightning takes what is left of it for done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import lightning
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop


@dataclass
class Unfinished:
    """What is left to do of a run when it is resumed, before it learns from another batch.

    Attributes:
        is_step: Whether the last step has not come to its end, be it for its validation or for that of the epoch.
        is_epoch_start: Whether an epoch is about to begin.
        validated: Batches of all epochs up to which validations are over.
        is_stopped: Whether the run has been stopped early.
    """

    is_step: bool = False
    is_epoch_start: bool = False
    validated: int = 0
    is_stopped: bool = False


class ResumedFitLoop(_FitLoop):
    """Does not end by its limits before the last step is finished."""

    unfinished = Unfinished()

    @property
    def done(self) -> bool:
        """Whether no batch is to be learnt from."""
        if self.unfinished.is_step:
            return False
        return (self.unfinished.is_stopped and self._can_stop_early) or super().done

    @property
    def skip(self) -> bool:
        """Whether not even the hooks at the start and the end of training are called."""
        return not self._loaded_from_state_dict and super().skip


class ResumedEpochLoop(_TrainingEpochLoop):
    """Finishes the last step instead of learning from another batch."""

    @property
    def unfinished(self) -> Unfinished:
        """What is left to do."""
        return cast(ResumedFitLoop, self.trainer.fit_loop).unfinished

    @property
    def done(self) -> bool:
        """Whether the epoch, or the run, has no further batch."""
        return not self.unfinished.is_step and super().done

    def reset(self) -> None:
        """Counts from 0 where an epoch begins, as Lightning does unless it is the first one after a resume."""
        if self.unfinished.is_epoch_start:
            self.unfinished.is_epoch_start = self.restarting = False
        super().reset()

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Learns from a batch, or does nothing where `on_advance_end` is what is left of the last one."""
        if not self.unfinished.is_step:
            super().advance(data_fetcher)
            return
        self.unfinished.is_step = False
        self.val_loop.restarting = False  # a validation is made up from its beginning
        self.trainer.should_stop = self.unfinished.is_stopped

    def _should_check_val_fx(self, data_fetcher: _DataFetcher) -> bool:
        is_new = self.batch_progress.total.ready > self.unfinished.validated
        return is_new and super()._should_check_val_fx(data_fetcher)


def resume_within_steps(trainer: lightning.Trainer, unfinished: Unfinished) -> None:
    """Lets ``trainer``, which makes its loops itself, begin with what is left to do."""
    trainer.fit_loop.__class__ = ResumedFitLoop
    trainer.fit_loop.epoch_loop.__class__ = ResumedEpochLoop
    cast(ResumedFitLoop, trainer.fit_loop).unfinished = unfinished
