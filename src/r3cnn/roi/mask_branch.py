"""The mask branch: mask heads that may feed one another, and what scores their masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from r3cnn.ops.fusion import fuse_masks
from r3cnn.ops.masks import mask_targets
from r3cnn.ranges import check_range
from r3cnn.roi.extractors import RoIExtractor
from r3cnn.roi.losses import select_class
from r3cnn.roi.mask_heads import MaskHead
from r3cnn.roi.mask_iou_heads import MaskSamples, MaskScorer
from r3cnn.roi.training_rois import BatchTargets, Samples
from r3cnn.schedule import LoopSchedule
from r3cnn.structures import RoiRows


class MaskHeadFactory(Protocol):
    """Builds one mask head."""

    def __call__(self, *, feedback: bool) -> MaskHead:
        """New weights at every call."""
        ...


class PredictedMasks(NamedTuple):
    """Masks of N detections.

    Attributes:
        probabilities: (N, M, M) of the detected class, fused over the loops.
        scores: (N,) that rank them.
    """

    probabilities: Tensor
    scores: Tensor


class MaskBranch(nn.Module):
    """Pools RoIs and predicts their masks.

    Args:
        schedule: Says how many heads there are and which of them own a feedback convolution.
        extractor: Pools RoIs; shared by all heads.
        head: Called once per head with ``feedback``; every call must make new weights.
        iou_head: Scores the masks of the last loop.
        mask_size: M, side of the mask targets.
    """

    def __init__(
        self,
        schedule: LoopSchedule,
        *,
        extractor: RoIExtractor,
        head: MaskHeadFactory,
        iou_head: MaskScorer,
        mask_size: int,
    ) -> None:
        super().__init__()
        check_range("[1, 512]", mask_size=mask_size)
        fed = schedule.feedback_heads or () if schedule.has_feedback else ()
        self.extractor = extractor
        self.heads = nn.ModuleList(cast(nn.Module, head(feedback=index in fed)) for index in range(schedule.num_heads))
        self.iou_head, self.mask_size = iou_head, mask_size

    def head(self, head: int) -> MaskHead:
        """The mask head of that index."""
        return cast(MaskHead, self.heads[head])

    def states(self, pooled: Tensor, heads: Sequence[int], *, feedback: bool) -> list[Tensor]:
        """Feature (N, C, S, S) of each head that runs, fed with the one before it if there is feedback."""
        states: list[Tensor] = []
        for head in heads:
            states.append(self.head(head).trunk(pooled, states[-1] if states and feedback else None))
        return states

    def train_on(
        self, features: Sequence[Tensor], rows: RoiRows, samples: Samples, targets: BatchTargets, chain: Sequence[int]
    ) -> MaskSamples:
        """Masks of sampled RoIs by the last head of a chain, each fed with the one before it, and what they should be.

        Args:
            features: Pyramid levels (B, C, H, W).
            rows: The RoIs, N rows.
            samples: The slots that they came from, only positives valid.
            targets: Ground truth.
            chain: Head indices.
        """
        pooled = self.extractor(features, rows)
        labels = torch.where(rows.valid, samples.labels.flatten()[rows.slot], 0)
        state = self.states(pooled, chain, feedback=True)[-1]
        logits = self._learn_class(self.head(chain[-1]), state, labels)
        with torch.no_grad():
            wanted = [
                mask_targets(masks, boxes, gt, self.mask_size)
                for masks, boxes, gt in zip(targets.masks, samples.rois.boxes, samples.gt, strict=True)
            ]
        return MaskSamples(rows, samples, pooled, logits, torch.stack(wanted).flatten(0, 1)[rows.slot])

    @staticmethod
    def _learn_class(head: MaskHead, state: Tensor, labels: Tensor) -> Tensor:
        """(N, M, M) float32 logits of the true classes.

        The upsampled feature would be as much for every loop to keep as all that comes before it: it is made again
        for the gradient, which takes the operations of one more convolution.
        """

        def predict(state: Tensor) -> Tensor:
            return select_class(head.predict(state), labels).float()

        if not (torch.is_grad_enabled() and state.requires_grad):
            return predict(state)
        return checkpoint(predict, state, use_reentrant=False)

    def predict(
        self, features: Sequence[Tensor], rows: RoiRows, labels: Tensor, box_scores: Tensor, schedule: LoopSchedule
    ) -> PredictedMasks:
        """Masks of detections, from as many loops as ``schedule`` has for evaluation.

        Args:
            features: Pyramid levels (B, C, H, W).
            rows: The detected boxes, N rows.
            labels: (N,) int64 detected class of each row, in [0, K).
            box_scores: (N,) scores of the boxes.
            schedule: Heads, feedback and fusion.
        """
        pooled = self.extractor(features, rows)
        states = self.states(pooled, schedule.eval_heads, feedback=schedule.has_feedback)
        logits = [
            self.head(head).predict_class(state, labels).float()
            for head, state in zip(schedule.eval_heads, states, strict=True)
        ]
        scores = self.iou_head.scores(box_scores, pooled, logits[-1], labels)
        return PredictedMasks(fuse_masks(logits, schedule.mask_fusion), scores)
