"""Which RoIs leave the loops early at inference: an optional mode that trades accuracy for time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from r3cnn.ops.boxes import pairwise_iou
from r3cnn.ranges import check_range
from r3cnn.roi.box_heads import BoxOutput
from r3cnn.roi.inference import SelectedBoxes
from r3cnn.roi.loop_output import LoopOutput
from r3cnn.roi.training_rois import Samples
from r3cnn.structures import Rois

Masks = tuple[Tensor, Tensor]
"""(B, D, M, M) probabilities and (B, D) scores, zero in empty slots."""


class RunLoops(Protocol):
    """`RoIHeads.run_loops` for one batch."""

    def __call__(self, rois: Rois, heads: Sequence[int]) -> list[LoopOutput]:
        """One loop per entry of ``heads`` over all RoIs."""
        ...


class PredictMasks(Protocol):
    """Mask heads for one batch."""

    def __call__(self, selected: SelectedBoxes, loops: int) -> Masks:
        """Masks of the selected boxes after so many mask loops."""
        ...


@runtime_checkable
class LoopExit(Protocol):
    """Anything that says which RoIs go through which loops at inference."""

    def run(self, loops: RunLoops, rois: Rois, heads: Sequence[int], stds: Tensor) -> list[LoopOutput]:
        """What every loop made of *all* RoIs.

        Args:
            loops: Runs loops over the RoIs that it is given.
            rois: Proposals.
            heads: Head of each loop, at least one.
            stds: (H, 4) standard deviations of the deltas of each head.
        """
        ...

    def masks(self, predict: PredictMasks, selected: SelectedBoxes, outputs: Sequence[LoopOutput]) -> Masks:
        """Masks of the detections.

        Args:
            predict: Runs mask loops over the boxes that it is given.
            selected: The detections, D slots per image.
            outputs: What ``run`` gave for the loops so far.
        """
        ...


class StayInLoops:
    """Every RoI goes through all loops, as in the paper."""

    def run(self, loops: RunLoops, rois: Rois, heads: Sequence[int], stds: Tensor) -> list[LoopOutput]:
        """The loops as they are."""
        return loops(rois, heads)

    def masks(self, predict: PredictMasks, selected: SelectedBoxes, outputs: Sequence[LoopOutput]) -> Masks:
        """Every mask goes through all loops too."""
        return predict(selected, len(outputs))


@dataclass(frozen=True)
class EarlyExit:
    """A RoI leaves once it is background, or once its scores and its box have settled.

    One that has left keeps its last logits and its last box in all loops that follow: they say what the further loops
    would say if nothing changed any more. So the fusion of the scores needs no rule of its own, whichever one is used,
    and a settled RoI scores as if it had stayed, up to the change that was let pass. The mask of a detection is that of
    as many mask loops as its RoI went through. If all RoIs leave after one loop, the outcome is that of one loop.

    Rows of those that left are really dropped: the further loops pool and judge the others alone. For that the host
    reads twice per loop how many are left, with static shapes too; where waiting for the device costs more than
    the rows, this mode does not pay.

    Attributes:
        background_above: Background probability in [0, 1] above which a RoI leaves after any loop; at 1 none does.
        score_change: A RoI's scores have settled if no class probability changed by this much, in [0, 1], since the
            loop before, so after the second loop at the earliest; at 0 they never have.
        box_iou: Its box has settled if the loop's box has at least this IoU, in [0, 1], with that of the loop before.

    Raises:
        ValueError: For a value out of range.
    """

    background_above: float
    score_change: float
    box_iou: float

    def __post_init__(self) -> None:
        check_range("[0, 1]", **asdict(self))

    def run(self, loops: RunLoops, rois: Rois, heads: Sequence[int], stds: Tensor) -> list[LoopOutput]:
        """The loops one by one, each over the RoIs that are left; see `LoopExit.run`."""
        outputs = loops(rois, heads[:1])
        for head in heads[1:]:
            last = outputs[-1]
            stays = last.rows.scatter(~self.leaves(outputs), rois.valid) & rois.valid  # (B, R)
            index = _slots_of(stays)
            left = Rois(_taken(last.refined.boxes, index), _taken(stays, index))
            outputs.append(_completed(last, loops(left, [head])[0], index, stds))
        return outputs

    def masks(self, predict: PredictMasks, selected: SelectedBoxes, outputs: Sequence[LoopOutput]) -> Masks:
        """Masks of as many loops as each detection's RoI went through."""
        rows, slots = outputs[-1].rows, outputs[-1].offered.valid
        went = sum((~self.leaves(outputs[:loop]) for loop in range(1, len(outputs))), torch.ones_like(rows.slot))
        loops_of = rows.scatter(went, slots).gather(1, selected.roi)  # (B, D)
        places, found = [], []
        for loops in range(1, len(outputs) + 1):
            chosen = selected.rois.valid & (loops_of == loops)
            index = _slots_of(chosen)
            rois = Rois(_taken(selected.rois.boxes, index), _taken(chosen, index))
            others = (_taken(values, index) for values in (selected.scores, selected.labels, selected.roi))
            places.append((index, rois.valid))
            found.append(predict(SelectedBoxes(rois, *others), loops))
        masks, scores = (_joined(places, parts, selected.labels) for parts in zip(*found, strict=True))
        return masks, scores

    def leaves(self, outputs: Sequence[LoopOutput]) -> Tensor:
        """(N,) bool of the rows: whether a RoI leaves after the loops run so far. Whoever has left leaves again."""
        last = outputs[-1]
        probabilities = _probabilities(last)
        is_background = probabilities[:, -1] > self.background_above
        if len(outputs) == 1:
            return is_background
        change = (probabilities - _probabilities(outputs[-2])).abs().amax(dim=1)
        ways = (last.offered.boxes, last.refined.boxes)
        before, after = (boxes.flatten(0, 1)[last.rows.slot, None] for boxes in ways)  # (N, 1, 4)
        iou = pairwise_iou(before, after)[:, 0, 0]
        return is_background | ((change < self.score_change) & (iou >= self.box_iou))


def _probabilities(output: LoopOutput) -> Tensor:
    """(N, K + 1) float32."""
    return output.box.logits.float().softmax(dim=1)


def _slots_of(chosen: Tensor) -> Tensor:
    """(B, S) int64 slots of those that are chosen (B, R), in their old order; S is what the fullest image needs.

    Where an image has fewer, slots that are not chosen follow.
    """
    count = int(chosen.sum(dim=1).amax()) if chosen.shape[1] else 0  # the host read
    return chosen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]


def _taken(values: Tensor, index: Tensor) -> Tensor:
    """(B, S, …) of values (B, R, …) from the slots (B, S)."""
    return values[torch.arange(len(index), device=index.device)[:, None], index]


def _joined(places: Sequence[tuple[Tensor, Tensor]], parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """(B, D, …) with the (B, D) of ``like`` from parts (B, S, …), of which the valid slots (B, S) count; else zero."""
    joined = parts[0].new_zeros(*like.shape, *parts[0].shape[2:])
    for (index, valid), values in zip(places, parts, strict=True):
        counts = valid.view(*valid.shape, *[1] * (values.ndim - 2))
        image = torch.arange(len(index), device=index.device)[:, None]
        joined = joined.index_put((image, index), torch.where(counts, values, joined[image, index]))
    return joined


def _completed(before: LoopOutput, ran: LoopOutput, index: Tensor, stds: Tensor) -> LoopOutput:
    """A loop's output for all RoIs: what it made of those that stayed, and what the others had before.

    The row of a RoI that has left holds the box and the deltas of the loop that it left after, which decode to its last
    boxes; the deltas are rescaled where the heads have different deviations.

    Args:
        before: Output of the loop before, all RoIs.
        ran: Output of the loop over those that stayed.
        index: (B, S) slot in ``before`` of each slot in ``ran``.
        stds: (H, 4) standard deviations of the deltas of each head.
    """
    offered = before.refined
    images, slots = offered.valid.shape
    number = torch.arange(len(before.rows.slot), device=index.device)
    row_of = number.new_zeros(images * slots).index_copy(0, before.rows.slot, number)
    slot = (index + torch.arange(images, device=index.device)[:, None] * slots).flatten()[ran.rows.slot]
    rows = row_of[slot]

    def put(old: Tensor, new: Tensor, at: Tensor, valid: Tensor) -> Tensor:
        return old.index_copy(0, at, torch.where(valid[:, None], new, old[at]))

    scale = stds[before.head] / stds[ran.head]
    kept_deltas = (before.box.deltas.float().unflatten(1, (-1, 4)) * scale).flatten(1)
    logits = put(before.box.logits.float(), ran.box.logits.float(), rows, ran.rows.valid)
    deltas = put(kept_deltas, ran.box.deltas.float(), rows, ran.rows.valid)
    boxes = put(before.rows.boxes, ran.rows.boxes, rows, ran.rows.valid)
    refined = put(offered.boxes.flatten(0, 1), ran.refined.boxes.flatten(0, 1)[ran.rows.slot], slot, ran.rows.valid)
    return replace(
        ran,
        offered=offered,
        samples=Samples.unlabelled(offered),
        rows=replace(before.rows, boxes=boxes),
        box=BoxOutput(logits, deltas),
        refined=Rois(refined.view_as(offered.boxes), offered.valid),
    )
