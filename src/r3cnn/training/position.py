"""Where in the data a run is, so that a resumed run goes on with the very next batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import lightning
import torch


@runtime_checkable
class Positioned(Protocol):
    """A data module whose order of images is a function of the seed and the epoch."""

    def set_position(self, epoch: int, batch: int) -> None:
        """The next pass over the training data starts at this batch of this epoch."""


def set_position(trainer: lightning.Trainer, epoch: int, batch: int) -> None:
    """Moves the trainer's data module.

    Raises:
        TypeError: For a data module that cannot be moved.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it in `fit`
    if not isinstance(data, Positioned):
        raise TypeError(f"{type(data).__name__} lacks set_position(epoch, batch): it could not be resumed")
    data.set_position(epoch, batch)


def position_in(checkpoint: Mapping[str, object]) -> tuple[int, int]:
    """Epoch and batch at which training goes on from a Lightning checkpoint, both counted from 0."""
    loop = _child(_child(checkpoint, "loops"), "fit_loop")
    epochs = _child(_child(loop, "epoch_progress"), "current")
    batches = _child(loop, "epoch_loop.batch_progress")
    epoch, started = _number(epochs, "processed"), _number(epochs, "started")
    if epoch == started:
        return epoch, 0  # written between two epochs
    if batches.get("is_last_batch", False):
        return epoch + 1, 0  # written after the last batch, before Lightning counted the epoch as done
    return epoch, _number(_child(batches, "current"), "processed")


def reopen_epoch(checkpoint: Mapping[str, object]) -> None:
    """Turns Lightning's counters of epochs back, in place, where a run ended within an epoch.

    A limit of steps or of time, or an early stop, ends a run in the middle of an epoch, which Lightning then counts as
    done; whoever resumes it with a higher limit expects the rest of that epoch.

    Args:
        checkpoint: Lightning's content of a checkpoint.
    """
    loop = _child(_child(checkpoint, "loops"), "fit_loop")
    progress, batches = _child(loop, "epoch_progress"), _child(loop, "epoch_loop.batch_progress")
    current, total = _child(progress, "current"), _child(progress, "total")
    seen = _number(_child(batches, "current"), "processed")
    if seen == 0 or batches.get("is_last_batch", False) or current.get("processed") != current.get("started"):
        return
    for counters in (current, total):
        if not isinstance(counters, dict):
            raise ValueError("the checkpoint's training progress cannot be changed: it cannot be resumed")
        unfinished = _number(counters, "started") - 1
        for key in ("processed", "completed"):
            counters[key] = min(_number(counters, key), unfinished)


def go_back_to_step(checkpoint: Mapping[str, object], accumulated: int) -> None:
    """Turns Lightning's counters of batches back, in place, to the last batch that an optimizer step was made after.

    A checkpoint from between two steps (a validation, the end of the time) has lost the gradients of the batches since
    the last one, so they are learnt from again. Weights are those of the last step already; running statistics of
    batch norm alone, if it is trained, have seen these batches before.

    Args:
        checkpoint: Lightning's content of a checkpoint.
        accumulated: Batches per optimizer step on one rank; the last step of an epoch may have fewer.
    """
    _, batch = position_in(checkpoint)
    surplus = batch % accumulated
    if surplus == 0:
        return
    batches = _child(_child(_child(checkpoint, "loops"), "fit_loop"), "epoch_loop.batch_progress")
    current, total = _child(batches, "current"), _child(batches, "total")
    if not isinstance(current, dict) or not isinstance(total, dict):
        raise ValueError("the checkpoint's training progress cannot be changed: it cannot be resumed")
    for key in current:
        total[key] = _number(total, key) - (_number(current, key) - (batch - surplus))
        current[key] = batch - surplus


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
    return _number(torch.load(path, map_location="cpu", weights_only=True, mmap=True), "global_step")
