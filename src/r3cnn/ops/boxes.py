"""Box arithmetic: IoU, clipping, and the delta coder of Faster R-CNN (arXiv 1506.01497, Eq. 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG_RATIO = math.log(1000 / 16)
_MIN_UNION = 1e-6


def box_areas(boxes: Tensor) -> Tensor:
    """Areas (...) in square pixels of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU in [0, 1] of every box with every other box of the same image.

    Args:
        boxes: (..., N, 4).
        others: (..., M, 4) with the same leading dimensions.

    Returns:
        (..., N, M); 0 for boxes without area.
    """
    intersection = pairwise_intersection(boxes, others)
    union = box_areas(boxes)[..., :, None] + box_areas(others)[..., None, :] - intersection
    return intersection / union.clamp(min=_MIN_UNION)


def pairwise_intersection(boxes: Tensor, others: Tensor) -> Tensor:
    """(..., N, M) shared area in square pixels of every box (..., N, 4) with every other box (..., M, 4)."""
    upper_left = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    lower_right = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    sides = (lower_right - upper_left).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def encode_boxes(boxes: Tensor, targets: Tensor, stds: Tensor | float) -> Tensor:
    """Deltas ``(dx, dy, dw, dh)`` that turn ``boxes`` (..., 4) into ``targets`` (..., 4), divided by ``stds``.

    ``stds`` is (4,), or one number for all.
    Boxes without area give infinite or undefined deltas: mask them out before.
    """
    size = boxes[..., 2:] - boxes[..., :2]
    target_size = targets[..., 2:] - targets[..., :2]
    shift = ((targets[..., :2] + targets[..., 2:]) - (boxes[..., :2] + boxes[..., 2:])) * 0.5 / size
    deltas = torch.cat([shift, torch.log(target_size / size)], dim=-1)
    return deltas / stds


def decode_boxes(boxes: Tensor, deltas: Tensor, stds: Tensor | float) -> Tensor:
    """Inverse of ``encode_boxes``; log ratios are limited to +-ln(1000 / 16).

    Args:
        boxes: (..., 4).
        deltas: (..., 4), broadcastable against ``boxes``.
        stds: (4,) standard deviation of each delta, or one number for all.

    Returns:
        (..., 4) boxes, not clipped.
    """
    deltas = deltas * stds
    size = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) * 0.5 + size * deltas[..., :2]
    half = size * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)


def unit_box(like: Tensor) -> Tensor:
    """(4,) the box ``(0, 0, 1, 1)``: stands in where a box is not to count but must not give an infinity either."""
    box = like.new_zeros(4)
    box[2:].fill_(1)
    return box


def clip_boxes(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (B, ..., 4) cut at the borders of their images.

    Args:
        boxes: (B, ..., 4).
        limits: (B, 4) ``(width, height, width, height)`` of each image in pixels, see ``image_limits``.
    """
    limits = limits.reshape(limits.shape[0], *[1] * (boxes.ndim - 2), 4)
    return torch.minimum(boxes.clamp(min=0), limits)


def image_limits(sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """(B, 4) float32 ``(width, height, width, height)`` from (height, width) of each image."""
    return torch.tensor([(w, h, w, h) for h, w in sizes], dtype=torch.float32).to(device, non_blocking=True)
