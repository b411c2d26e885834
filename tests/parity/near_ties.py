"""Thresholds, greedy NMS and top-k cuts in three values: what rounding can decide either way is neither in nor out.

Two implementations whose scores and boxes differ by rounding may keep different boxes: two scores swap, an IoU lies on
the threshold, and what one box suppresses depends on whether it is kept itself. Here every decision is made with
intervals, so ``sure`` holds what any such implementation keeps, and ``possible`` what at least one may keep. If no
decision is close the two are equal, and comparing with them is comparing exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from r3cnn.ops.boxes import box_areas


@dataclass(frozen=True)
class Candidates:
    """N scored boxes, each known up to rounding.

    Attributes:
        boxes: (N, 4) pixels.
        scores: (N,).
        groups: (N,) int64; only boxes of one group suppress each other.
        margins: (N,) how far a score may be off.
        pixels: (N,) how far a coordinate may be off.
        sure: (N,) bool: in the running whatever the rounding.
        possible: (N,) bool: in the running if rounding helps.
    """

    boxes: Tensor
    scores: Tensor
    groups: Tensor
    margins: Tensor
    pixels: Tensor
    sure: Tensor
    possible: Tensor

    def above(self, threshold: float) -> Candidates:
        """Scores above a threshold."""
        return self._with(self.scores - self.margins > threshold, self.scores + self.margins > threshold)

    def top(self, limit: int) -> Candidates:
        """The best ``limit`` of all."""
        high, low = self.scores + self.margins, self.scores - self.margins
        rivals = _count_at_least(high[self.possible], low) - self.possible.long()  # a box is no rival of itself
        better = _count_above(low[self.sure], high)
        return self._with(rivals < limit, better < limit)

    def nms(self, threshold: float) -> Candidates:
        """Greedy NMS inside the groups."""
        sure, possible = self.sure.clone(), self.possible.clone()
        for group in self.groups.unique():
            rows = (self.groups == group).nonzero()[:, 0]
            sure[rows], possible[rows] = self._settle(rows, threshold)
        return self._with(sure, possible)

    def _settle(self, rows: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """One group: shrink what is possible and grow what is sure until nothing changes."""
        high, low = (self.scores + self.margins)[rows], (self.scores - self.margins)[rows]
        # The original moves group g by g * (largest coordinate + 1) in float32, which rounds the boxes.
        shift = float((self.groups[rows[0]] + 1) * (self.boxes.amax() + 1))
        iou, margin = _iou_with_margin(self.boxes[rows].double(), self.pixels[rows].double() + shift * 2.0**-24)
        others = ~torch.eye(len(rows), dtype=torch.bool)
        surely_drops = (low[:, None] > high[None]) & (iou - margin > threshold) & others  # [i, j]: i drops j if kept
        may_drop = (high[:, None] >= low[None]) & (iou + margin > threshold) & others
        possible = self.possible[rows]
        sure = torch.zeros_like(possible)
        while True:
            left = self.possible[rows] & ~surely_drops[sure].any(dim=0)
            kept = self.sure[rows] & ~may_drop[left].any(dim=0)
            if torch.equal(left, possible) and torch.equal(kept, sure):
                return sure, possible
            possible, sure = left, kept

    def _with(self, sure: Tensor, possible: Tensor) -> Candidates:
        return replace(self, sure=self.sure & sure, possible=self.possible & possible)


def candidates(boxes: Tensor, scores: Tensor, groups: Tensor, margins: Tensor, pixels: Tensor) -> Candidates:
    """All boxes in the running."""
    every = torch.ones_like(scores, dtype=torch.bool)
    return Candidates(boxes, scores.double(), groups, margins.double(), pixels, every, every)


def unexplained(
    outcome: Candidates, boxes: Tensor, scores: Tensor | None, groups: Tensor | None
) -> tuple[list[int], list[int]]:
    """What of a list no rounding explains.

    Args:
        outcome: What rounding may keep.
        boxes: (n, 4) of the list.
        scores: (n,), or ``None`` if they are not known.
        groups: (n,), or ``None`` if they are not known.

    Returns:
        Rows without a partner among the possible boxes, and sure boxes that are no partner of any row.
    """
    distance = (boxes[:, None] - outcome.boxes[None]).abs().amax(dim=-1)  # (listed, N)
    fits = (distance <= outcome.pixels) & outcome.possible
    if scores is not None:
        fits &= (scores[:, None] - outcome.scores).abs() <= outcome.margins
    if groups is not None:
        fits &= groups[:, None] == outcome.groups
    taken = torch.zeros(fits.shape[1], dtype=torch.bool)
    without = []
    for row in range(len(boxes)):
        options = (fits[row] & ~taken).nonzero()[:, 0]
        if len(options):
            cost = (
                distance[row, options] + (~outcome.sure[options]).float()
            )  # equal boxes: those that must be there first
            taken[options[cost.argmin()]] = True
        else:
            without.append(row)
    return without, (outcome.sure & ~taken).nonzero()[:, 0].tolist()


def _iou_with_margin(boxes: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(N, N) IoU of boxes and how far it can be off if each coordinate of a box is off by its ``pixels`` (N,).

    A box that was cut off at the border of the image has no area whatever the rounding, and drops nothing.
    """
    corner = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    overlap = (torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner).clamp(min=0)  # (N, N, 2)
    intersection, areas = overlap.prod(dim=-1), box_areas(boxes)
    union = (areas[:, None] + areas[None] - intersection).clamp(min=1e-9)
    area_slack = 2 * pixels * (boxes[:, 2:] - boxes[:, :2]).sum(dim=1)
    overlap_slack = 2 * torch.maximum(pixels[:, None], pixels[None]) * overlap.sum(dim=-1)
    has_area = areas > 0
    slack = (2 * overlap_slack + area_slack[:, None] + area_slack[None]) / union
    return intersection / union, torch.where(has_area[:, None] & has_area[None], slack, 0.0)


def _count_at_least(values: Tensor, bounds: Tensor) -> Tensor:
    return len(values) - torch.searchsorted(values.sort().values, bounds)


def _count_above(values: Tensor, bounds: Tensor) -> Tensor:
    return len(values) - torch.searchsorted(values.sort().values, bounds, right=True)
