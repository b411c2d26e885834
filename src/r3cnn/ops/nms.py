"""Non-maximum suppression inside groups, for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

# The cost of one call grows with the square of its boxes, that of many calls with their number (each is waited for).
_LARGEST_CALL = 16_384


def nms_mask(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    allowed: Tensor,
    iou_threshold: float,
    *,
    is_static: bool | None = None,
) -> Tensor:
    """Greedy NMS in which only boxes of the same image and group suppress each other.

    Arithmetic is float64, and a box's fate does not depend on which other groups or images are in the batch.

    Args:
        boxes: (B, N, 4) with non-negative coordinates.
        scores: (B, N).
        groups: (B, N) int64 >= 0, for example a class or a pyramid level.
        allowed: (B, N) bool; other boxes have lower scores than all allowed ones of their group and are not kept.
        iou_threshold: A box is dropped if its IoU with a better one of its group is larger than this.
        is_static: How often the host waits for the device depends on the shapes alone, else on the groups and boxes
            that there are; ``None``: except on CPU, where waiting costs nothing.

    Returns:
        (B, N) bool, which boxes are kept.
    """
    if is_static is None:
        is_static = boxes.device.type != "cpu"
    image = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(groups)
    keep = torch.zeros(groups.numel(), dtype=torch.bool, device=boxes.device)
    flat = boxes.flatten(0, 1), scores.flatten()
    if is_static:
        number = image * (groups.max() + 1) + groups if groups.numel() else groups
        images_at_once = max(1, _LARGEST_CALL // max(1, groups.shape[1]))
        parts = torch.arange(groups.numel(), device=boxes.device).split(images_at_once * max(1, groups.shape[1]))
        for rows in parts:
            keep[rows[_apart(flat[0][rows], flat[1][rows], number.flatten()[rows], iou_threshold)]] = True
    else:
        rows = allowed.flatten().nonzero()[:, 0]
        number = (image * (groups.max() + 1) + groups).flatten()[rows] if len(rows) else rows
        order = number.argsort(stable=True)
        _, counts = number[order].unique_consecutive(return_counts=True)
        for group in rows[order].split(counts.tolist()):
            keep[group[nms(flat[0][group].double(), flat[1][group].double(), iou_threshold)]] = True
    return keep.view_as(groups) & allowed


def _apart(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float) -> Tensor:
    """Indices kept by one call for all groups: each is moved to a place of its own, which in float64 is exact."""
    if boxes.shape[0] == 0:
        return groups
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
