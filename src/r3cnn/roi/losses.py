"""Losses of one loop: classification, box and mask (R3-CNN, arXiv 2104.01329, Eq. 1; Mask R-CNN, arXiv 1703.06870)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from r3cnn.ops.boxes import encode_boxes, unit_box
from r3cnn.roi.box_heads import BoxOutput


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Scalar sum of scalar losses, each times its factor."""
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def class_loss(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Cross entropy over K + 1 classes, mean over the sampled RoIs.

    Args:
        logits: (N, K + 1).
        labels: (N,) int64 in [0, K], K is background.
        valid: (N,) bool; other rows do not count.
    """
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    return (losses * valid).sum() / valid.sum().clamp(min=1)


def box_loss(
    output: BoxOutput,
    boxes: Tensor,
    gt_boxes: Tensor,
    labels: Tensor,
    *,
    positive: Tensor,
    valid: Tensor,
    stds: Tensor,
    beta: float,
) -> Tensor:
    """Smooth-L1 of the deltas of the positives, divided by the number of all sampled RoIs.

    Args:
        output: Deltas (N, 4) or (N, 4K).
        boxes: (N, 4) RoIs.
        gt_boxes: (N, 4) ground truth of each positive.
        labels: (N,) class of each RoI, for class-specific deltas.
        positive: (N,) bool.
        valid: (N,) bool.
        stds: (4,) standard deviations of the deltas.
        beta: Where square turns to linear; 0 is L1.
    """
    rows = positive[:, None]
    # A box without area, or an empty row, must not even produce an infinity: 0 * inf is nan.
    unit = unit_box(boxes)
    goal = encode_boxes(torch.where(rows, boxes, unit), torch.where(rows, gt_boxes, unit), stds)
    deltas = select_deltas(output.deltas, torch.where(positive, labels, 0)).float()
    losses = F.smooth_l1_loss(deltas, goal, beta=beta, reduction="none")
    return (losses * rows).sum() / valid.sum().clamp(min=1)


def mask_loss(logits: Tensor, wanted: Tensor, positive: Tensor) -> Tensor:
    """Binary cross entropy of the true class's mask, mean over the pixels of all positives.

    Args:
        logits: (N, M, M) of each RoI's true class.
        wanted: (N, M, M) in {0, 1}.
        positive: (N,) bool; other rows do not count.
    """
    losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=(1, 2))
    return (losses * positive).sum() / positive.sum().clamp(min=1)


def select_deltas(deltas: Tensor, labels: Tensor) -> Tensor:
    """(N, 4) deltas of each row's class from (N, 4) class-agnostic or (N, 4K) class-specific ones."""
    if deltas.shape[1] == 4:
        return deltas
    by_class = deltas.unflatten(1, (-1, 4))  # (N, K, 4), no RoI included
    return by_class.gather(1, labels[:, None, None].expand(-1, 1, 4))[:, 0]


def select_class(maps: Tensor, labels: Tensor) -> Tensor:
    """(N, M, M) map of each row's class from (N, K, M, M)."""
    side = maps.shape[-1]
    return maps.gather(1, labels[:, None, None, None].expand(-1, 1, side, side))[:, 0]
