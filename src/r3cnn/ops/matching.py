"""Assigning ground truth to boxes by IoU, batched over images and free of host synchronisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r3cnn.ops.boxes import box_areas, pairwise_intersection, pairwise_iou
from r3cnn.ranges import check_range


@dataclass(frozen=True)
class Matches:
    """Outcome of matching N boxes per image.

    Attributes:
        iou: (..., N) best IoU with any ground truth, 0 without one.
        gt: (..., N) int64 index of the assigned ground truth; meaningful where ``positive``.
        positive: (..., N) bool.
        negative: (..., N) bool; a box may be neither.
    """

    iou: Tensor
    gt: Tensor
    positive: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Matcher:
    """Max-IoU assignment of Faster R-CNN (arXiv 1506.01497, section 3.1.2), comparisons ``>=`` as in the released code.

    Attributes:
        foreground: IoU in (0, 1] from which on a box is positive.
        background: IoU below which a box is negative.
        low_quality: Smallest IoU at which a ground truth still claims its best box(es); above 1: never. The released
            code leaves this rule on in the RoI heads as well, with the foreground threshold.
    """

    foreground: float
    background: float
    low_quality: float

    def __post_init__(self) -> None:
        check_range("(0, 1]", foreground=self.foreground)
        check_range("[0, 1]", background=self.background)
        check_range("[0, inf]", low_quality=self.low_quality)
        if self.background > self.foreground:
            raise ValueError(f"background is {self.background}, above foreground, which is {self.foreground}")

    def __call__(self, boxes: Tensor, valid: Tensor, gt_boxes: Tensor, gt_valid: Tensor) -> Matches:
        """Matches every box with the ground truth of its image.

        Args:
            boxes: (..., N, 4).
            valid: (..., N) bool; the others are neither positive nor negative and claim nothing.
            gt_boxes: (..., G, 4).
            gt_valid: (..., G) bool.
        """
        if gt_boxes.shape[-2] == 0:
            zeros = torch.zeros_like(valid, dtype=boxes.dtype)
            return Matches(zeros, torch.zeros_like(valid, dtype=torch.int64), torch.zeros_like(valid), valid)
        iou = pairwise_iou(gt_boxes, boxes)  # (..., G, N)
        iou = iou * (gt_valid[..., :, None] & valid[..., None, :])
        best_iou, best_gt = iou.max(dim=-2)
        best_of_gt = iou.amax(dim=-1, keepdim=True)  # (..., G, 1)
        claimed = (iou == best_of_gt) & (best_of_gt >= self.low_quality) & gt_valid[..., :, None]
        # Where several ground truths claim one box, the last one gets it.
        order = torch.arange(1, iou.shape[-2] + 1, device=iou.device)[:, None]
        claimant = (claimed * order).amax(dim=-2)  # (..., N): 0 is nobody
        is_claimed = claimant > 0
        positive = (is_claimed | (best_iou >= self.foreground)) & valid
        negative = (best_iou < self.background) & valid & ~positive
        return Matches(best_iou, torch.where(is_claimed, claimant - 1, best_gt), positive, negative)


def outside_crowds(boxes: Tensor, crowds: Tensor, most: float) -> Tensor:
    """Which boxes lie in no crowd region: the others are neither positive nor negative.

    Args:
        boxes: (..., N, 4).
        crowds: (..., C, 4); boxes without area hold nothing.
        most: Part of a box's own area, in (0, 1], that may lie in one crowd.

    Returns:
        (..., N) bool.
    """
    if crowds.shape[-2] == 0:
        return torch.ones(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
    inside = pairwise_intersection(boxes, crowds).amax(dim=-1) / box_areas(boxes).clamp(min=1e-6)
    return inside <= most
