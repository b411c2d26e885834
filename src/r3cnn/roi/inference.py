"""From fused class probabilities and boxes to the detections of each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from r3cnn.ops.nms import nms_mask, top_per_image
from r3cnn.ranges import check_range
from r3cnn.structures import Detections, Rois

# Greedy NMS in score order decides about a box from better ones only, so the best candidates are enough if they
# already fill the list of detections; if not, all candidates are looked at.
_FIRST_CANDIDATES = 2000


@dataclass(frozen=True)
class DetectionSettings:
    """Which boxes become detections.

    Attributes:
        score_threshold: A class probability must be larger than this, in [0, 1).
        nms_threshold: IoU above which the worse of two boxes of one class is dropped.
        max_detections: Best detections of an image that are kept.
        mask_threshold: A pixel belongs to a mask from this probability on, in [0.5, 1].
    """

    score_threshold: float
    nms_threshold: float
    max_detections: int
    mask_threshold: float

    def __post_init__(self) -> None:
        check_range("[0, 1]", score_threshold=self.score_threshold)
        check_range("(0, 1]", nms_threshold=self.nms_threshold)
        check_range("[1, inf)", max_detections=self.max_detections)
        check_range("[0.5, 1]", mask_threshold=self.mask_threshold)


@dataclass(frozen=True)
class SelectedBoxes:
    """D slots per image, best score first.

    Attributes:
        rois: The boxes, as RoIs for the mask head.
        scores: (B, D) float32.
        labels: (B, D) int64 in [0, K).
        roi: (B, D) int64 slot of the RoI that each came from.
    """

    rois: Rois
    scores: Tensor
    labels: Tensor
    roi: Tensor


def select_boxes(
    probabilities: Tensor,
    boxes: Tensor,
    valid: Tensor,
    settings: DetectionSettings,
    *,
    is_static: bool | None = None,
) -> SelectedBoxes:
    """Threshold, NMS per class, and the best of each image.

    Args:
        probabilities: (B, R, K + 1), background last.
        boxes: (B, R, 4) for all classes, or (B, R, K, 4) class by class; clipped to the image.
        valid: (B, R) bool.
        settings: Thresholds.
        is_static: As in `nms_mask`.
    """
    num_classes = probabilities.shape[2] - 1
    scores = torch.where(valid[..., None], probabilities[..., :num_classes], -1.0).flatten(1)  # (B, R * K)
    for candidates in (min(_FIRST_CANDIDATES, scores.shape[1]), scores.shape[1]):
        selected, is_complete = _select(scores, boxes, num_classes, candidates, settings, is_static)
        if candidates == scores.shape[1] or bool(is_complete):
            break
    return selected


def _select(
    scores: Tensor,
    boxes: Tensor,
    num_classes: int,
    candidates: int,
    settings: DetectionSettings,
    is_static: bool | None = None,
) -> tuple[SelectedBoxes, Tensor]:
    """Selection among the best ``candidates`` of each image, and whether more of them could change nothing."""
    images = scores.shape[0]
    best, flat = scores.topk(candidates, dim=1)  # (B, M)
    row, label = flat // num_classes, flat % num_classes
    image = torch.arange(images, device=scores.device)[:, None]
    box = boxes[image, row] if boxes.ndim == 3 else boxes[image, row, label]  # (B, M, 4)
    possible = best > settings.score_threshold
    keep = nms_mask(box, best, label, possible, settings.nms_threshold, is_static=is_static)
    index, valid = top_per_image(keep, best, settings.max_detections)
    rois = Rois(box.gather(1, index[..., None].expand(-1, -1, 4)), valid)
    is_full = keep.sum(dim=1) >= settings.max_detections
    has_seen_all = ~possible[:, -1] if candidates else torch.ones_like(is_full)
    selected = SelectedBoxes(rois, best.gather(1, index), label.gather(1, index), row.gather(1, index))
    return selected, (is_full | has_seen_all).all()


def to_detections(
    selected: SelectedBoxes, masks: Tensor, mask_scores: Tensor, *, has_mask_scores: bool, settings: DetectionSettings
) -> list[Detections]:
    """Selected boxes and their masks, image by image; one host read.

    Args:
        selected: D slots per image.
        masks: (B, D, M, M) probabilities.
        mask_scores: (B, D) scores that rank the masks.
        has_mask_scores: Whether a mask-IoU head made them.
        settings: Says from which probability on a pixel belongs to a mask.
    """
    counts = selected.rois.valid.sum(dim=1).tolist()
    parts = zip(counts, selected.rois.boxes, selected.scores, selected.labels, masks, mask_scores, strict=True)
    return [
        Detections(
            boxes[:n],
            scores[:n],
            labels[:n],
            mask[:n],
            mask_score[:n],
            has_mask_scores=has_mask_scores,
            mask_threshold=settings.mask_threshold,
        )
        for n, boxes, scores, labels, mask, mask_score in parts
    ]
