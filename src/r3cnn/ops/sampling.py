"""Random choice of training boxes with a fixed number of slots per image, free of host synchronisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r3cnn.ranges import check_range


@dataclass(frozen=True)
class Sampled:
    """S slots per image: the chosen positives by ascending index, then the chosen negatives, then empty slots.

    Attributes:
        index: (B, S) int64 into the N boxes of the image; 0 in empty slots.
        valid: (B, S) bool, whether the slot is taken.
        positive: (B, S) bool, all of them within the first ``max_positives`` slots.
    """

    index: Tensor
    valid: Tensor
    positive: Tensor


@dataclass(frozen=True)
class BalancedSampler:
    """Takes ``count`` boxes, at most a share of them positive (Fast R-CNN, arXiv 1504.08083, section 2.3).

    Attributes:
        count: Boxes per image.
        positive_fraction: Largest share of positives in (0, 1].
    """

    count: int
    positive_fraction: float

    def __post_init__(self) -> None:
        check_range("[1, inf)", count=self.count)
        check_range("(0, 1]", positive_fraction=self.positive_fraction)

    @property
    def max_positives(self) -> int:
        """Most positives that an image can get."""
        return int(self.count * self.positive_fraction)

    def __call__(self, positive: Tensor, negative: Tensor, generator: torch.Generator | None) -> Sampled:
        """Samples at random, each box with equal probability inside its kind.

        Args:
            positive: (B, N) bool.
            negative: (B, N) bool.
            generator: Source of all randomness, on the device of the masks.
        """
        total = positive.shape[1]
        slots = min(self.count, total)
        priority = torch.rand(positive.shape, generator=generator, device=positive.device)
        chosen_pos, num_pos = _choose(priority, positive, min(self.max_positives, total))
        chosen_neg, _ = _choose(priority, negative, slots, limit=slots - num_pos)
        # Ascending position in [positives | negatives | nothing] of every candidate.
        nothing = 2 * total
        order = torch.cat([chosen_pos.clamp(max=nothing), (chosen_neg + total).clamp(max=nothing)], dim=1)
        order = order.sort(dim=1).values[:, :slots]
        valid = order < nothing
        return Sampled(torch.where(valid, order % max(total, 1), 0), valid, order < total)


def _choose(priority: Tensor, allowed: Tensor, slots: int, limit: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Indices (B, slots) of the allowed boxes of highest priority, 2N where there is none, and their number (B,)."""
    total = allowed.shape[1]
    best, index = torch.where(allowed, priority, -1.0).topk(slots, dim=1)
    taken = best >= 0
    if limit is not None:
        taken = taken & (torch.arange(slots, device=priority.device) < limit[:, None])
    return torch.where(taken, index, 2 * total), taken.sum(dim=1)
