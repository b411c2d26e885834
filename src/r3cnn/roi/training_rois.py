"""Which RoIs a loop trains on: matching with the ground truth at the loop's IoU threshold, then sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from r3cnn.ops.matching import Matcher, outside_crowds
from r3cnn.ops.sampling import BalancedSampler
from r3cnn.structures import InstanceMasks, Rois, Target


@dataclass(frozen=True)
class BatchTargets:
    """Ground truth of a batch in G slots per image.

    Attributes:
        boxes: (B, G, 4) float32.
        labels: (B, G) int64 in [0, K).
        valid: (B, G) bool.
        masks: One entry per image.
        crowds: (B, C, 4) float32, zeros in empty slots.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    masks: tuple[InstanceMasks, ...]
    crowds: Tensor

    @classmethod
    def of(cls, targets: Sequence[Target]) -> BatchTargets:
        """Pads the ground truth of each image to the largest number of instances."""
        boxes = torch.nn.utils.rnn.pad_sequence([target.boxes.float() for target in targets], batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence([target.labels for target in targets], batch_first=True)
        counts = torch.tensor([len(target) for target in targets]).to(boxes.device, non_blocking=True)
        valid = torch.arange(boxes.shape[1], device=boxes.device) < counts[:, None]
        crowds = torch.nn.utils.rnn.pad_sequence([target.crowds.float() for target in targets], batch_first=True)
        return cls(boxes, labels, valid, tuple(target.masks for target in targets), crowds)

    def boxes_of(self, gt: Tensor) -> Tensor:
        """(B, S, 4) boxes of ground-truth indices (B, S); zeros where the batch has no ground truth at all."""
        if self.boxes.shape[1] == 0:
            return self.boxes.new_zeros(*gt.shape, 4)
        return self.boxes.gather(1, gt[..., None].expand(-1, -1, 4))


@dataclass(frozen=True)
class Samples:
    """RoIs that a loop trains on, S slots per image: positives first, then negatives.

    Attributes:
        rois: The sampled boxes.
        positive: (B, S) bool, all within the first ``max_positives`` slots.
        gt: (B, S) int64 index of the ground truth of each positive, 0 elsewhere.
        labels: (B, S) int64, K for negatives.
        is_gt: (B, S) bool, whether the RoI is itself a ground-truth box that was added to the RoIs.
        candidate: (B, S) int64 index into [ground truths | RoIs] of the image.
        iou: (B, R) best IoU of the RoIs that came in, before ground truth was added, for statistics.
        max_positives: Upper bound of the positives of an image.
    """

    rois: Rois
    positive: Tensor
    gt: Tensor
    labels: Tensor
    is_gt: Tensor
    candidate: Tensor
    iou: Tensor
    max_positives: int

    @classmethod
    def unlabelled(cls, rois: Rois) -> Samples:
        """All RoIs as they are, none of them labelled: what inference works on."""
        nothing = torch.zeros_like(rois.valid)
        zero = torch.zeros_like(rois.valid, dtype=torch.int64)
        return cls(rois, nothing, zero, zero, nothing, zero, rois.boxes[..., 0] * 0, 0)

    @property
    def handed_on(self) -> Tensor:
        """(B, S) bool: RoIs whose refined boxes the next loop gets; ground truth is added there anew."""
        return self.rois.valid & ~self.is_gt

    def positives(self) -> Samples:
        """The slots that can hold positives, for the mask head."""
        stop = self.max_positives
        return replace(
            self,
            rois=Rois(self.rois.boxes[:, :stop], self.positive[:, :stop]),
            positive=self.positive[:, :stop],
            gt=self.gt[:, :stop],
            labels=self.labels[:, :stop],
            is_gt=self.is_gt[:, :stop],
            candidate=self.candidate[:, :stop],
        )


@torch.no_grad()
def sample_rois(
    rois: Rois,
    targets: BatchTargets,
    *,
    iou_threshold: float,
    crowd_iof: float,
    num_classes: int,
    sampler: BalancedSampler,
    generator: torch.Generator | None,
) -> Samples:
    """Matches RoIs at one threshold for both sides, adds the ground truth as RoIs and samples (paper, Eq. 2 and 3).

    RoIs of which more than ``crowd_iof`` lies in a crowd are left out.
    """
    matcher = Matcher(foreground=iou_threshold, background=iou_threshold, low_quality=iou_threshold)
    usable = rois.valid & outside_crowds(rois.boxes, targets.crowds, crowd_iof)
    match = matcher(rois.boxes, usable, targets.boxes, targets.valid)
    num_gt = targets.boxes.shape[1]
    own = torch.arange(num_gt, device=rois.boxes.device).expand(targets.valid.shape)
    boxes = torch.cat([targets.boxes, rois.boxes], dim=1)
    gt = torch.cat([own, match.gt], dim=1)
    positive = torch.cat([targets.valid, match.positive], dim=1)
    negative = torch.cat([torch.zeros_like(targets.valid), match.negative], dim=1)

    sampled = sampler(positive, negative, generator)
    chosen_gt = torch.where(sampled.positive, gt.gather(1, sampled.index), 0)
    labels = torch.full_like(chosen_gt, num_classes)
    if num_gt:
        labels = torch.where(sampled.positive, targets.labels.gather(1, chosen_gt), labels)
    return Samples(
        rois=Rois(boxes.gather(1, sampled.index[..., None].expand(-1, -1, 4)), sampled.valid),
        positive=sampled.positive,
        gt=chosen_gt,
        labels=labels,
        is_gt=sampled.valid & (sampled.index < num_gt),
        candidate=sampled.index,
        iou=match.iou,
        max_positives=min(sampler.max_positives, sampled.index.shape[1]),
    )
