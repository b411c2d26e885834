"""The proposal network: objectness and deltas per anchor, its losses, and the proposals that go into the loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from r3cnn.layers.init import init_normal
from r3cnn.ops.boxes import clip_boxes, decode_boxes, encode_boxes, image_limits, unit_box
from r3cnn.ops.matching import Matcher, outside_crowds
from r3cnn.ops.nms import nms_mask, top_per_image
from r3cnn.ops.sampling import BalancedSampler, Sampled
from r3cnn.ranges import check_range
from r3cnn.rpn.anchors import AnchorGenerator
from r3cnn.structures import Rois, ScoredRois, Size, Target, canvas_of


@dataclass(frozen=True)
class ProposalSettings:
    """How many proposals to keep.

    Attributes:
        per_level: Best anchors of each level that enter NMS.
        per_image: Best proposals of an image after NMS.
        nms_threshold: IoU above which the worse of two proposals of one level is dropped.
    """

    per_level: int
    per_image: int
    nms_threshold: float

    def __post_init__(self) -> None:
        check_range("[1, 100000]", per_level=self.per_level, per_image=self.per_image)
        check_range("(0, 1]", nms_threshold=self.nms_threshold)


class RPNHead(nn.Module):
    """A 3x3 convolution and two 1x1 convolutions, shared by all levels."""

    def __init__(self, channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, num_anchors, 1)
        self.deltas = nn.Conv2d(channels, 4 * num_anchors, 1)
        for layer in (self.conv, self.objectness, self.deltas):
            init_normal(layer, std=0.01)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, A, H, W) and deltas (B, 4A, H, W) of each level."""
        hidden = [F.relu(self.conv(feature), inplace=True) for feature in features]
        return [self.objectness(x) for x in hidden], [self.deltas(x) for x in hidden]


class RPN(nn.Module):
    """Region proposal network.

    Args:
        channels: Channels of the pyramid.
        anchors: Anchor generator with one stride per level.
        matcher: IoU assignment of anchors.
        sampler: Anchors per image that are trained.
        allowed_border: Pixels by which a trained anchor may leave the image; negative: any anchor is trained.
        crowd_iof: Part of an anchor, in (0, 1], that may lie in a crowd; others are neither positive nor negative.
        box_loss_beta: Where smooth-L1 turns from square to linear; 0 is L1.
        train_proposals: Proposals while training.
        eval_proposals: Proposals at inference.
        static_shapes: Wait for the device equally often whatever is proposed; ``None``: except on CPU.
    """

    def __init__(
        self,
        channels: int,
        *,
        anchors: AnchorGenerator,
        matcher: Matcher,
        sampler: BalancedSampler,
        allowed_border: float,
        crowd_iof: float,
        box_loss_beta: float,
        train_proposals: ProposalSettings,
        eval_proposals: ProposalSettings,
        static_shapes: bool | None = None,
    ) -> None:
        super().__init__()
        check_range("(-inf, inf)", allowed_border=allowed_border)
        check_range("(0, 1]", crowd_iof=crowd_iof)
        check_range("[0, inf)", box_loss_beta=box_loss_beta)
        self.head = RPNHead(channels, anchors.num_anchors)
        self.anchors, self.matcher, self.sampler = anchors, matcher, sampler
        self.allowed_border, self.crowd_iof, self.box_loss_beta = allowed_border, crowd_iof, box_loss_beta
        self.train_proposals, self.eval_proposals = train_proposals, eval_proposals
        self.static_shapes = static_shapes

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> Rois:
        """Proposals at inference from levels (B, C, H, W) of images of ``sizes``."""
        return self.propose_scored(features, sizes).rois

    def propose_scored(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> ScoredRois:
        """What ``propose`` gives, best first, with the objectness in [0, 1]."""
        logits, deltas, anchors = self._predict(features)
        return self._select(logits, deltas, anchors, sizes, self.eval_proposals)

    def candidates(self, features: Sequence[Tensor], limits: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness (B, P) and boxes (B, P, 4) of the anchors of each level that enter NMS at inference, best first.

        Args:
            features: Levels (B, C, H, W).
            limits: (B, 4) ``(width, height, width, height)`` of each image in pixels.
        """
        return self._best_anchors(*self._predict(features), limits, self.eval_proposals.per_level)

    def losses(
        self,
        features: Sequence[Tensor],
        sizes: Sequence[Size],
        targets: Sequence[Target],
        generator: torch.Generator | None,
    ) -> tuple[Rois, dict[str, Tensor]]:
        """Training proposals and the losses ``rpn/objectness`` and ``rpn/box``."""
        logits, deltas, anchors = self._predict(features)
        with torch.no_grad():
            proposals = self._select(logits, deltas, anchors, sizes, self.train_proposals).rois
        usable = self._usable(features, sizes, torch.cat(anchors))
        losses = self._losses(
            torch.cat(logits, 1), torch.cat(deltas, 1), torch.cat(anchors), usable, targets, generator
        )
        return proposals, losses

    def _predict(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Logits (B, N), deltas (B, N, 4) and anchors (N, 4) of each level, in float32."""
        logit_maps, delta_maps = self.head(features)
        shapes = [(x.shape[-2], x.shape[-1]) for x in features]
        logits = [x.permute(0, 2, 3, 1).flatten(1).float() for x in logit_maps]
        deltas = [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4).float() for x in delta_maps]
        return logits, deltas, self.anchors(shapes, features[0].device)

    @torch.no_grad()
    def _select(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        sizes: Sequence[Size],
        settings: ProposalSettings,
    ) -> ScoredRois:
        """Best anchors per level -> boxes -> NMS per image and level -> best per image."""
        limits = image_limits(sizes, logits[0].device)
        scores, boxes = self._best_anchors(logits, deltas, anchors, limits, settings.per_level)
        groups = [torch.full_like(best, level, dtype=torch.int64) for level, best in enumerate(scores)]
        score, box, group = torch.cat(scores, 1), torch.cat(boxes, 1), torch.cat(groups, 1)
        every = torch.ones_like(group, dtype=torch.bool)
        keep = nms_mask(box, score, group, every, settings.nms_threshold, is_static=self.static_shapes)
        index, valid = top_per_image(keep, score, settings.per_image)
        return ScoredRois(Rois(box.gather(1, index[..., None].expand(-1, -1, 4)), valid), score.gather(1, index))

    @staticmethod
    def _best_anchors(
        logits: Sequence[Tensor], deltas: Sequence[Tensor], anchors: Sequence[Tensor], limits: Tensor, per_level: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Scores (B, P) and clipped boxes (B, P, 4) of each level's best anchors, at most ``per_level`` of each."""
        scores, boxes = [], []
        for level_logits, level_deltas, level_anchors in zip(logits, deltas, anchors, strict=True):
            best, index = level_logits.sigmoid().topk(min(per_level, level_logits.shape[1]), dim=1)
            chosen = level_deltas.gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(clip_boxes(decode_boxes(level_anchors[index], chosen, 1.0), limits))
            scores.append(best)
        return scores, boxes

    def _usable(self, features: Sequence[Tensor], sizes: Sequence[Size], anchors: Tensor) -> Tensor:
        """(B, N) bool: anchors in cells of the image's own canvas that do not cross its border by more than allowed."""
        shapes = [(x.shape[-2], x.shape[-1]) for x in features]
        cells = [torch.cat(self.anchors.valid(shapes, canvas_of(size), anchors.device)) for size in sizes]
        usable = torch.stack(cells)
        if self.allowed_border < 0:
            return usable
        limits = image_limits(sizes, anchors.device)[:, None, 2:] + self.allowed_border  # (B, 1, 2)
        inside = (anchors[:, :2] >= -self.allowed_border).all(-1) & (anchors[:, 2:] < limits).all(-1)
        return usable & inside

    def _losses(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        usable: Tensor,
        targets: Sequence[Target],
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        sampled, gt_boxes = self._sample(anchors, usable, targets, generator)
        logits = logits.gather(1, sampled.index)
        deltas = deltas.gather(1, sampled.index[..., None].expand(-1, -1, 4))
        objectness = F.binary_cross_entropy_with_logits(logits, sampled.positive.float(), reduction="none")
        # An empty slot or a background anchor must not even produce an infinity: 0 * inf is nan.
        is_positive = sampled.positive[..., None]
        unit = unit_box(anchors)
        goal = encode_boxes(
            torch.where(is_positive, anchors[sampled.index], unit), torch.where(is_positive, gt_boxes, unit), 1.0
        )
        box = F.smooth_l1_loss(deltas, goal, beta=self.box_loss_beta, reduction="none")
        # Both kinds count at least once per image, as in the released code.
        positives = sampled.positive.sum(1).clamp(min=1).sum()
        negatives = (sampled.valid & ~sampled.positive).sum(1).clamp(min=1).sum()
        total = (positives + negatives).float()
        return {
            "rpn/objectness": (objectness * sampled.valid).sum() / total,
            "rpn/box": (box * is_positive).sum() / total,
        }

    @torch.no_grad()
    def _sample(
        self, anchors: Tensor, usable: Tensor, targets: Sequence[Target], generator: torch.Generator | None
    ) -> tuple[Sampled, Tensor]:
        """Sampled anchors and the ground-truth box (B, S, 4) of each; matched image by image to bound memory."""
        matches = []
        for valid, target in zip(usable, targets, strict=True):
            present = torch.ones(len(target), dtype=torch.bool, device=anchors.device)
            usable_here = valid & outside_crowds(anchors, target.crowds, self.crowd_iof)
            matches.append(self.matcher(anchors, usable_here, target.boxes, present))
        positive = torch.stack([match.positive for match in matches])
        negative = torch.stack([match.negative for match in matches])
        sampled = self.sampler(positive, negative, generator)
        gt_boxes = [
            target.boxes[match.gt[index]] if len(target) else anchors[index]
            for target, match, index in zip(targets, matches, sampled.index, strict=True)
        ]
        return sampled, torch.stack(gt_boxes)
