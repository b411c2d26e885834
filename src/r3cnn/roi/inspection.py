"""More than detections from one pass: other rules of fusion, other views of the images, and the RoIs on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from r3cnn.ops.boxes import clip_boxes
from r3cnn.ops.nms import nms_mask, top_per_image
from r3cnn.ops.views import Seen
from r3cnn.roi.heads import RoIHeads
from r3cnn.roi.loop_output import LoopOutput
from r3cnn.schedule import ScoreFusion
from r3cnn.structures import Detections, LoopTrace, Rois, ScoredRois


@dataclass(frozen=True)
class Inspection:
    """What one pass over a batch shows.

    Attributes:
        detections: ``[loop][image]``, with the network's own rule of score fusion.
        fused: The same with other rules.
        candidates: The proposals, ranked by objectness, then what every loop made of them, ranked by the largest class
            probability, fused over the loops so far.
        traces: The way of the RoIs through every loop, in pixels of the plain images.
    """

    detections: list[list[Detections]]
    fused: dict[ScoreFusion, list[list[Detections]]]
    candidates: list[ScoredRois]
    traces: list[LoopTrace]


@dataclass(frozen=True)
class SeenFeatures:
    """One view of a batch and its pyramid levels (B, C, H, W)."""

    seen: Seen
    features: Sequence[Tensor]


def merge_proposals(
    proposals: Sequence[ScoredRois], *, nms_threshold: float, per_image: int, is_static: bool | None = None
) -> ScoredRois:
    """One list of proposals from those of several views, in pixels of the plain images: NMS over all of them.

    Those of a single view are left as they are.
    """
    if len(proposals) == 1:
        return proposals[0]
    boxes = torch.cat([one.rois.boxes for one in proposals], dim=1)  # (B, V * R, 4)
    valid = torch.cat([one.rois.valid for one in proposals], dim=1)
    scores = torch.where(valid, torch.cat([one.scores for one in proposals], dim=1), -1.0)
    keep = nms_mask(
        boxes, scores, torch.zeros_like(valid, dtype=torch.int64), valid, nms_threshold, is_static=is_static
    )
    index, is_taken = top_per_image(keep, scores, per_image)
    chosen = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    return ScoredRois(Rois(chosen, is_taken), scores.gather(1, index))


def inspect_loops(
    heads: RoIHeads, views: Sequence[SeenFeatures], proposals: ScoredRois, limits: Tensor, rules: Sequence[ScoreFusion]
) -> Inspection:
    """Runs the loops once per view on the same proposals and brings the views together after every loop.

    As in the released code's test with augmentations: each view refines the proposals by itself; class probabilities
    and boxes of a RoI are averaged over the views before NMS, mask probabilities of the selected boxes after it.

    Args:
        heads: The RoI heads.
        views: At least one.
        proposals: In pixels of the plain images.
        limits: (B, 4) ``(width, height, width, height)`` of the plain images.
        rules: Rules of score fusion beside the network's own.
    """
    rois = proposals.rois
    ways = [
        _Way(view, heads.inference_loops(view.features, _in_view(view.seen, rois), view.seen.limits)) for view in views
    ]
    own = heads.schedule.score_fusion
    loops = len(ways[0].outputs)
    detections, candidates = [], [proposals]
    for loop in range(1, loops + 1):
        probabilities, boxes = _classify(heads, ways, loop, limits, own)
        detections.append(_detect(heads, ways, loop, probabilities, boxes, rois.valid))
        refined = _mean([way.view.seen.plain_boxes(way.outputs[loop - 1].refined.boxes) for way in ways])
        candidates.append(ScoredRois(Rois(clip_boxes(refined, limits), rois.valid), probabilities[..., :-1].amax(-1)))
    fused: dict[ScoreFusion, list[list[Detections]]] = {}
    for rule in rules:
        # After one loop there is nothing to fuse.
        later = (
            detections[1:] if rule == own else [_fuse(heads, ways, n, limits, rule, rois) for n in range(2, loops + 1)]
        )
        fused[rule] = [detections[0], *later]
    return Inspection(detections, fused, candidates, [_plain_trace(ways[0], output) for output in ways[0].outputs])


@dataclass(frozen=True)
class _Way:
    """What the loops did in one view."""

    view: SeenFeatures
    outputs: list[LoopOutput]


def _fuse(
    heads: RoIHeads, ways: Sequence[_Way], loops: int, limits: Tensor, rule: ScoreFusion, rois: Rois
) -> list[Detections]:
    return _detect(heads, ways, loops, *_classify(heads, ways, loops, limits, rule), rois.valid)


def _classify(
    heads: RoIHeads, ways: Sequence[_Way], loops: int, limits: Tensor, rule: ScoreFusion
) -> tuple[Tensor, Tensor]:
    """Mean probabilities and boxes of the views after the first loops, in pixels of the plain images."""
    found = [heads.classify(way.outputs[:loops], way.view.seen.limits, rule) for way in ways]
    boxes = [way.view.seen.plain_boxes(boxes) for way, (_, boxes) in zip(ways, found, strict=True)]
    return _mean([probabilities for probabilities, _ in found]), clip_boxes(_mean(boxes), limits)


def _detect(
    heads: RoIHeads, ways: Sequence[_Way], loops: int, probabilities: Tensor, boxes: Tensor, valid: Tensor
) -> list[Detections]:
    selected = heads.select(probabilities, boxes, valid)
    masks, scores = [], []
    for way in ways:
        seen = way.view.seen
        shown = replace(selected, rois=_in_view(seen, selected.rois))
        mask, score = heads.predict_masks(way.view.features, shown, way.outputs[:loops])
        masks.append(seen.plain_masks(mask))
        scores.append(score)
    return heads.detections(selected, _mean(masks), _mean(scores))


def _in_view(seen: Seen, rois: Rois) -> Rois:
    return replace(rois, boxes=seen.boxes(rois.boxes))


def _plain_trace(way: _Way, output: LoopOutput) -> LoopTrace:
    plain, trace = way.view.seen.plain_boxes, output.trace
    offered, kept = (replace(rois, boxes=plain(rois.boxes)) for rois in (trace.offered, trace.kept))
    return LoopTrace(offered, kept, plain(trace.refined))


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Mean of tensors of one shape; a single one stays as it is, to the bit."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).mean(dim=0)
