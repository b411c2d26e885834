"""Where in the data a run is, so that a resumed run goes on with the very next image.

A run that is resumed with the same batch size, number of ranks and batches per step is the same, to the bit, as one
that was never cut off. With other ones the images that the epoch under way has seen are worked out with the old sizes,
and the rest of them forms new batches: no image is seen twice or left out, and the next epochs are ordinary ones.
Images and seed, which decide on the order, must be the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import lightning
import torch

from r3cnn.data.samplers import Dealt, TrainBatchSampler, used_batches

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


def take_up(trainer: lightning.Trainer, checkpoint: dict[str, object], batch_size: int) -> EpochStart:
    """Moves the data and, in the checkpoint, Lightning's counters to where a run goes on.

    A checkpoint from between two optimizer steps (a validation, the end of the time) has lost the gradients of the
    batches since the last one, so they are learnt from again. Weights are those of the last step already; running
    statistics of batch norm alone, if it is trained, have seen these batches before.

    Args:
        trainer: The trainer of this run.
        checkpoint: Lightning's content of a checkpoint, changed in place.
        batch_size: Images per batch and rank in this run.
    """
    reopen_epoch(checkpoint)
    data, accumulated = positioned(trainer), trainer.accumulate_grad_batches
    kept = _child(checkpoint, RUN)
    epoch, batch = position_in(checkpoint)
    is_within = batch > 0 or kept["epoch"] == epoch
    start = EpochStart(epoch)
    if kept["epoch"] == epoch:
        parts = cast("Sequence[tuple[int, int, int]]", kept["earlier"])
        start = EpochStart(epoch, _number(kept, "first_batch"), tuple(Dealt(*part) for part in parts))
    batch = max(start.first_batch, batch - batch % _number(kept, "accumulated"))
    done = batch - start.first_batch

    old = Dealt(_number(kept, "batch_size"), _number(kept, "ranks"), done)
    is_resized = old[:2] != (batch_size, trainer.world_size)
    earlier = (*start.earlier, *([old] if done else [])) if is_resized else start.earlier
    data.set_position(epoch, 0 if is_resized else done, earlier)
    sampler = data.train_sampler()
    length = used_batches(len(sampler), trainer.limit_train_batches, "trainer.limit_train_batches")
    if is_resized:
        share = batch / _number(kept, "epoch_batches") if length < len(sampler) else 0.0
        batch = max(length - sampler.num_left, int(share * length)) if earlier else 0
        start = EpochStart(epoch, batch, earlier)
    move_counters(checkpoint, batch if is_within else length)
    if is_within and batch >= length:
        _end_epoch(checkpoint)
        epoch, batch = epoch + 1, 0
        start = EpochStart(epoch)
        data.set_position(epoch, 0)
    steps = epoch * math.ceil(length / accumulated) + batch // accumulated
    return replace(start, steps_ahead=_number(checkpoint, "global_step") - steps)


def total_steps(trainer: lightning.Trainer, steps_ahead: int) -> float:
    """Optimizer steps of the whole run, those made with other sizes included; infinite when only time limits it."""
    per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    by_epochs = math.inf if trainer.max_epochs in (None, -1) else per_epoch * trainer.max_epochs + steps_ahead
    return min(by_epochs, math.inf if trainer.max_steps == -1 else trainer.max_steps)


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


def move_counters(checkpoint: Mapping[str, object], batch: int) -> None:
    """Turns Lightning's counters of batches, in place, to ``batch`` of the epoch."""
    batches = _child(_child(_child(checkpoint, "loops"), "fit_loop"), "epoch_loop.batch_progress")
    counters = [_child(batches, name) for name in ("current", "total")]
    surplus = _number(counters[0], "processed") - batch
    for each in counters:
        if not isinstance(each, dict):
            raise ValueError("the checkpoint's training progress cannot be changed: it cannot be resumed")
        each |= {key: _number(each, key) - surplus for key in each}


def _end_epoch(checkpoint: Mapping[str, object]) -> None:
    """Lets Lightning take the batch that its counters stand at for the last one of its epoch, just learnt from."""
    batches = _child(_child(_child(checkpoint, "loops"), "fit_loop"), "epoch_loop.batch_progress")
    if isinstance(batches, dict):
        batches["is_last_batch"] = True
        for name in ("current", "total"):
            batches[name]["completed"] = batches[name]["processed"] - 1


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
