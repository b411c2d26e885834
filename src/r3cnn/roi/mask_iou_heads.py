"""How good predicted masks are, to rank them by more than their box's score (Mask Scoring R-CNN, arXiv 1903.00241)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from r3cnn.layers.init import init_kaiming, init_normal
from r3cnn.layers.non_local import NonLocal, for_large_kernels
from r3cnn.ops.masks import visible_fractions
from r3cnn.ranges import check_range
from r3cnn.roi.training_rois import BatchTargets, Samples
from r3cnn.structures import RoiRows


@dataclass(frozen=True)
class MaskSamples:
    """What a mask head made of N sampled RoIs.

    Attributes:
        rows: The RoIs, those that are no positives not valid.
        samples: The slots that they came from.
        pooled: (N, C, S, S) features that went into the mask head.
        logits: (N, M, M) of the true class.
        wanted: (N, M, M) in {0, 1}.
    """

    rows: RoiRows
    samples: Samples
    pooled: Tensor
    logits: Tensor
    wanted: Tensor


class MaskScorer(Protocol):
    """Anything that scores masks."""

    has_scores: bool
    """Whether its scores differ from the box scores."""
    loss_weights: dict[str, float]
    """Factor of each of its losses in the total loss."""

    def losses(self, masks: MaskSamples, targets: BatchTargets) -> dict[str, Tensor]:
        """What it learns from the last loop, not weighted."""
        ...

    def scores(self, box_scores: Tensor, pooled: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """(N,) scores of N masks, whose boxes have scores (N,), from what `MaskIoUHead.forward` takes."""
        ...


class BoxScores:
    """Masks rank by the score of their box; there is nothing to learn."""

    has_scores = False
    loss_weights: dict[str, float] = {}  # noqa: RUF012  (a Protocol's attribute cannot be a ClassVar)

    def losses(self, masks: MaskSamples, targets: BatchTargets) -> dict[str, Tensor]:
        """No loss."""
        return {}

    def scores(self, box_scores: Tensor, pooled: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The box scores."""
        return box_scores


class MaskIoUHead(nn.Module):
    """Predicts the IoU of each mask with the truth, from the RoI's feature and the mask itself (R3-CNN, section 4.3).

    Convolutions and non-local blocks only. It is trained at the last loop, and its gradient reaches the mask head. In
    the released code the predicted mask counts as set where its *logit*, not its probability, exceeds 0.5.

    Args:
        in_channels: C, channels of the pooled features.
        roi_size: S, side of the pooled grid for masks; masks have twice that.
        num_classes: K, foreground classes.
        num_convs: 3x3 convolutions; the last one halves the grid.
        widths: Output channels of the two large convolutions.
        kernel_size: Side of the large convolutions and of the non-local blocks, odd.
        reduction: By how much the non-local blocks narrow their channels.
        logit_threshold: A pixel belongs to a predicted mask above this.
        loss_weight: Factor of the loss in the total loss; no loop's weight applies to it.
    """

    has_scores = True

    def __init__(
        self,
        *,
        in_channels: int,
        roi_size: int,
        num_classes: int,
        num_convs: int,
        widths: tuple[int, int],
        kernel_size: int,
        reduction: int,
        logit_threshold: float,
        loss_weight: float,
    ) -> None:
        super().__init__()
        check_range("[1, inf)", in_channels=in_channels, roi_size=roi_size, num_classes=num_classes)
        check_range("[1, inf)", num_convs=num_convs, widths=widths)
        check_range("(-inf, inf)", logit_threshold=logit_threshold)
        check_range("[0, inf)", loss_weight=loss_weight)
        first, second = widths
        strides = [1] * (num_convs - 1) + [2]
        self.convs = nn.ModuleList(
            nn.Conv2d(in_channels + (layer == 0), in_channels, 3, stride=stride, padding=1)
            for layer, stride in enumerate(strides)
        )
        self.attention1 = NonLocal(in_channels, reduction=reduction, kernel_size=kernel_size)
        self.conv1 = nn.Conv2d(in_channels, first, kernel_size, padding=kernel_size // 2)
        self.conv2 = nn.Conv2d(first, second, kernel_size, padding=kernel_size // 2)
        self.attention2 = NonLocal(second, reduction=reduction, kernel_size=kernel_size)
        self.iou = nn.Linear(second * ((roi_size + 1) // 2) ** 2, num_classes)
        self.logit_threshold, self.loss_weights = logit_threshold, {"mask_iou": loss_weight}
        init_kaiming(self.convs)
        init_kaiming(self.conv1)
        init_kaiming(self.conv2)
        init_normal(self.iou, std=0.01)

    def forward(self, pooled: Tensor, logits: Tensor) -> Tensor:
        """Predicted IoU (N, K), not limited to [0, 1].

        Args:
            pooled: (N, C, S, S) features that went into the mask head.
            logits: (N, 2S, 2S) of the true or the detected class.
        """
        mask = F.max_pool2d(logits.sigmoid()[:, None], 2).to(pooled.dtype)
        x = torch.cat([pooled, mask], dim=1)
        for conv in self.convs:
            x = F.relu(conv(x), inplace=True)
        x = F.relu(self.attention1(for_large_kernels(x)), inplace=True)
        x = F.relu(self.conv2(F.relu(self.conv1(x), inplace=True)), inplace=True)
        x = F.relu(self.attention2(x), inplace=True)
        return self.iou(x.flatten(1))

    def losses(self, masks: MaskSamples, targets: BatchTargets) -> dict[str, Tensor]:
        """``mask_iou``: mean squared error over the positives whose mask meets the truth at all."""
        goal = mask_ious(masks, targets, self.logit_threshold)
        labels = torch.where(masks.rows.valid, masks.samples.labels.flatten()[masks.rows.slot], 0)
        error = (_of_class(self(masks.pooled, masks.logits), labels) - goal) ** 2
        counts = masks.rows.valid & (goal > 0)
        return {"mask_iou": (error * counts).sum() / counts.sum().clamp(min=1)}

    def scores(self, box_scores: Tensor, pooled: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """(N,) box score times the predicted IoU of the detected class (N,); arguments else as in ``forward``."""
        return box_scores * _of_class(self(pooled, logits), labels)


def _of_class(values: Tensor, labels: Tensor) -> Tensor:
    """(N,) float32 of each row's class from (N, K)."""
    return values.float().gather(1, labels[:, None])[:, 0]


@torch.no_grad()
def mask_ious(masks: MaskSamples, targets: BatchTargets, logit_threshold: float) -> Tensor:
    """(N,) IoU in [0, 1] of predicted masks and whole instances, though a RoI may hold only a part of one.

    The area of the whole instance on the mask grid is that of the part inside the RoI divided by how much of the
    instance the RoI holds (Mask Scoring R-CNN, section 3.2).
    """
    samples = masks.samples
    visible = torch.stack(
        [
            visible_fractions(own, boxes, gt)
            for own, boxes, gt in zip(targets.masks, samples.rois.boxes, samples.gt, strict=True)
        ]
    )
    predicted = (masks.logits.float() > logit_threshold).float()
    overlap = (predicted * masks.wanted).sum(dim=(1, 2))
    whole = masks.wanted.sum(dim=(1, 2)) / (visible.flatten()[masks.rows.slot] + 1e-7)
    union = predicted.sum(dim=(1, 2)) + whole - overlap
    return torch.where(union > 0, overlap / torch.where(union > 0, union, 1.0), 0.0)
