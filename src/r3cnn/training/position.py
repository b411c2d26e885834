"""Where in the data a run is, so that a resumed run goes on with the very next image.

A run that is resumed with the same batch size, number of ranks and batches per step is the same, to the bit, as one
that was never cut off. With other ones the images that the epoch under way has seen are worked out with the old sizes,
and the rest of them forms new batches: no image is seen twice or left out, and the next epochs are ordinary ones.
Images and seed, which decide on the order, must be the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import lightning
from lightning.pytorch.callbacks import EarlyStopping

from r3cnn.archive import read_archive
from r3cnn.data.samplers import Dealt, TrainBatchSampler, used_batches
from r3cnn.training.loops import Unfinished

RUN = "r3cnn_run"  # key of a checkpoint: how the run that wrote it dealt its images out, and what else it rests on


@runtime_checkable
class Positioned(Protocol):
    """A data module whose order of images is a function of the seed and the epoch."""

    @property
    def order(self) -> Mapping[str, object]:
        """What the order of the images is a function of, beside the epoch."""

    def set_position(self, epoch: int, batch: int, earlier: Sequence[Dealt] = ()) -> None:
        """The next pass over the training data starts at this batch of this epoch, after parts of other sizes."""

    def train_sampler(self) -> TrainBatchSampler:
        """Batches of this rank from there on."""


@dataclass(frozen=True)
class EpochStart:
    """Where a run came into an epoch.

    Attributes:
        epoch: The epoch.
        first_batch: Lightning's number of its first batch with the sizes of this run.
        earlier: Parts of the epoch that were dealt out with other sizes.
        steps_ahead: Optimizer steps that the run had made beyond those of as many epochs with the sizes of this run.
    """

    epoch: int = 0
    first_batch: int = 0
    earlier: tuple[Dealt, ...] = ()
    steps_ahead: int = 0


def positioned(trainer: lightning.Trainer) -> Positioned:
    """The trainer's data module.

    Raises:
        TypeError: For one that cannot be moved.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it in `fit`
    if not isinstance(data, Positioned):
        raise TypeError(f"{type(data).__name__} lacks set_position(epoch, batch, earlier): it could not be resumed")
    return data


def dealing_of(trainer: lightning.Trainer, batch_size: int, start: EpochStart) -> dict[str, object]:
    """What a checkpoint keeps of how images are dealt out, as plain containers."""
    return {
        "order": dict(positioned(trainer).order),
        "batch_size": batch_size,
        "ranks": trainer.world_size,
        "accumulated": trainer.accumulate_grad_batches,
        "epoch_batches": int(trainer.num_training_batches),
        "epoch": start.epoch,
        "first_batch": start.first_batch,
        "earlier": [list(part) for part in start.earlier],
    }


def take_up(
    trainer: lightning.Trainer, checkpoint: dict[str, object], batch_size: int
) -> tuple[EpochStart, Unfinished]:
    """Moves the data and, in the checkpoint, Lightning's counters to where a run goes on.

    A checkpoint from between two optimizer steps (a validation, the end of the time) has lost the gradients of the
    batches since the last one, so they are learnt from again. Weights are those of the last step already; running
    statistics of batch norm alone, if it is trained, have seen these batches before.

    Args:
        trainer: The trainer of this run.
        checkpoint: Lightning's content of a checkpoint, changed in place.
        batch_size: Images per batch and rank in this run.

    Returns:
        How the run comes into the epoch, and what is left to do of the last step.
    """
    data, accumulated = positioned(trainer), trainer.accumulate_grad_batches
    kept, left = _child(checkpoint, RUN), Unfinished(is_stopped=_is_stopped(trainer, checkpoint))
    _finish_epoch(checkpoint)
    is_ended, as_ended = is_between_epochs(checkpoint), copy.deepcopy(checkpoint["loops"])
    is_over = is_ended and (left.is_stopped or 0 <= trainer.max_steps <= _number(checkpoint, "global_step"))
    reopen_epoch(checkpoint)
    epoch, batch = position_in(checkpoint)
    left.is_epoch_start = is_between_epochs(checkpoint)
    counters = _batches(checkpoint)
    is_last = not left.is_epoch_start and counters.get("is_last_batch") is True
    current, total = _child(counters, "current"), _child(counters, "total")
    left.is_step = not is_ended and current["ready"] == current["processed"]
    is_saved_before_validation = _number(current, "completed") < _number(current, "processed")
    left.validated = _number(total, "processed") - is_saved_before_validation

    start = EpochStart(epoch)
    if kept["epoch"] == epoch:
        parts = cast("Sequence[tuple[int, int, int]]", kept["earlier"])
        start = EpochStart(epoch, _number(kept, "first_batch"), tuple(Dealt(*part) for part in parts))
    if not is_last and batch % _number(kept, "accumulated"):
        batch, left.is_step = max(start.first_batch, batch - batch % _number(kept, "accumulated")), False
    done = batch - start.first_batch

    old = Dealt(_number(kept, "batch_size"), _number(kept, "ranks"), done)
    is_resized = old[:2] != (batch_size, trainer.world_size)
    earlier = (*start.earlier, *([old] if done else [])) if is_resized else start.earlier
    data.set_position(epoch, 0 if is_resized else done, earlier)
    sampler = data.train_sampler()
    length = used_batches(len(sampler), trainer.limit_train_batches, "trainer.limit_train_batches")
    if is_resized and not left.is_epoch_start:
        share = batch / _number(kept, "epoch_batches") if length < len(sampler) else 0.0
        batch = length if is_last else max(length - sampler.num_left, int(share * length))
        start = EpochStart(epoch, batch, earlier)
        left.validated += batch - _number(current, "processed")
    if not left.is_epoch_start:
        is_last |= batch >= length
        move_counters(checkpoint, batch, is_last=is_last)
        left.is_step |= is_last and not is_over
    steps_per_epoch = math.ceil(length / accumulated)
    steps = epoch * steps_per_epoch + (steps_per_epoch if is_last else batch // accumulated)
    if is_over and not is_resized:
        checkpoint["loops"] = as_ended
    return replace(start, steps_ahead=_number(checkpoint, "global_step") - steps), left


def total_steps(trainer: lightning.Trainer, steps_ahead: int) -> float:
    """Optimizer steps of the whole run, those made with other sizes included; infinite when only time limits it."""
    per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    by_epochs = math.inf if trainer.max_epochs in (None, -1) else per_epoch * trainer.max_epochs + steps_ahead
    return min(by_epochs, math.inf if trainer.max_steps == -1 else trainer.max_steps)


def position_in(checkpoint: Mapping[str, object]) -> tuple[int, int]:
    """Epoch and batch at which training goes on from a Lightning checkpoint, both counted from 0."""
    epoch = _number(_child(_epochs(checkpoint), "current"), "processed")
    return epoch, 0 if is_between_epochs(checkpoint) else _number(_child(_batches(checkpoint), "current"), "processed")


def is_between_epochs(checkpoint: Mapping[str, object]) -> bool:
    """Whether Lightning counts the last epoch that was begun as done."""
    epochs = _child(_epochs(checkpoint), "current")
    return _number(epochs, "processed") == _number(epochs, "started")


def reopen_epoch(checkpoint: Mapping[str, object]) -> None:
    """Turns Lightning's counters of epochs back, in place, where a run ended within an epoch.

    A limit of steps or of time, or an early stop, ends a run in the middle of an epoch, which Lightning then counts as
    done; whoever resumes it with a higher limit expects the rest of that epoch.

    Args:
        checkpoint: Lightning's content of a checkpoint.
    """
    batches = _batches(checkpoint)
    if _number(_child(batches, "current"), "processed") and not batches.get("is_last_batch", False):
        unfinished = _number(_child(_epochs(checkpoint), "current"), "started") - 1
        surplus = _number(_child(_epochs(checkpoint), "current"), "processed") - unfinished
        for counters in _counters(_epochs(checkpoint)):
            counters |= {key: _number(counters, key) - surplus for key in ("processed", "completed")}


def reopen_step(checkpoint: Mapping[str, object]) -> None:
    """Turns Lightning's counters, in place, back to before the validation that follows a batch."""
    for counters in _counters(_batches(checkpoint)):
        counters["completed"] = counters["processed"] - 1


def move_counters(checkpoint: Mapping[str, object], batch: int, *, is_last: bool = False) -> None:
    """Turns Lightning's counters of batches, in place, to the end of the first ``batch`` ones of the epoch."""
    batches = _batches(checkpoint)
    surplus = _number(_child(batches, "current"), "processed") - batch
    for counters in _counters(batches):
        counters |= dict.fromkeys(counters, _number(counters, "processed") - surplus)
    cast("dict[str, object]", batches)["is_last_batch"] = is_last


def _finish_epoch(checkpoint: Mapping[str, object]) -> None:
    """Counts an epoch as completed at whose end a callback wrote the checkpoint."""
    if is_between_epochs(checkpoint):
        for counters in _counters(_epochs(checkpoint)):
            counters["completed"] = counters["processed"]


def _is_stopped(trainer: lightning.Trainer, checkpoint: Mapping[str, object]) -> bool:
    """Whether a run has waited for a better validation as long as this one is ready to."""
    states = _child(checkpoint, "callbacks")
    for callback in trainer.early_stopping_callbacks:
        state = states.get(callback.state_key)
        if isinstance(callback, EarlyStopping) and isinstance(state, Mapping):
            return _number(state, "wait_count") >= callback.patience
    return False


def _epochs(checkpoint: Mapping[str, object]) -> Mapping[str, object]:
    return _child(_child(_child(checkpoint, "loops"), "fit_loop"), "epoch_progress")


def _batches(checkpoint: Mapping[str, object]) -> Mapping[str, object]:
    return _child(_child(_child(checkpoint, "loops"), "fit_loop"), "epoch_loop.batch_progress")


def _counters(progress: Mapping[str, object]) -> list[dict[str, int]]:
    """Those of the run under way and of all together."""
    found = [progress.get(name) for name in ("current", "total")]
    if not all(isinstance(each, dict) for each in found):
        raise ValueError("the checkpoint's training progress cannot be changed: it cannot be resumed")
    return cast("list[dict[str, int]]", found)


def _child(parent: Mapping[str, object], key: str) -> Mapping[str, object]:
    child = parent.get(key)
    if not isinstance(child, Mapping):
        raise ValueError(f"the checkpoint has no training progress ({key!r} is missing): it cannot be resumed")
    return child


def _number(parent: Mapping[str, object], key: str) -> int:
    value = parent.get(key)
    if not isinstance(value, int):
        raise ValueError(f"the checkpoint's training progress {key!r} is {value!r}, an integer is needed")
    return value


def step_in(path: Path) -> int:
    """Optimizer steps that were done when the checkpoint at ``path`` was written."""
    return _number(_content(path), "global_step")


def log_in(path: Path) -> tuple[int | None, Mapping[str, float]]:
    """Rows of ``metrics.csv`` at the time of a checkpoint, None if it does not say, and the row that was to follow."""
    run = _child(_content(path), RUN)
    rows, unlogged = run.get("rows"), run.get("unlogged")
    return rows if isinstance(rows, int) else None, unlogged if isinstance(unlogged, dict) else {}


def _content(path: Path) -> dict[str, object]:
    content = read_archive(path, mapped=True)
    return content if isinstance(content, dict) else {}
