"""Non-maximum suppression inside groups, for a whole batch in one call."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms


def grouped_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Greedy NMS in which only boxes of the same group suppress each other.

    Every group is moved to a place of its own. This happens in float64, where adding the offset to a float32
    coordinate is exact, so a box's fate does not depend on which other groups are in the batch.

    Args:
        boxes: (N, 4) with non-negative coordinates.
        scores: (N,).
        groups: (N,) int64 >= 0, for example image and class in one number.
        iou_threshold: A box is dropped if its IoU with a better one of its group is larger than this.

    Returns:
        (K,) int64 indices of the kept boxes, best score first.
    """
    if boxes.shape[0] == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    stride = boxes.amax().double() + 1
    return nms(boxes.double() + (groups * stride)[:, None], scores.double(), iou_threshold)


def top_per_image(keep: Tensor, scores: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Indices of the best kept boxes of each image in a fixed number of slots.

    Args:
        keep: (B, N) bool.
        scores: (B, N) in [0, 1].
        slots: S, number of boxes wanted.

    Returns:
        (B, min(S, N)) int64 indices, best first, and (B, min(S, N)) bool that tells which slots are taken.
    """
    best, index = torch.where(keep, scores, -1.0).topk(min(slots, keep.shape[1]), dim=1)
    return index, best >= 0
