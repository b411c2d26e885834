"""Lists that come out of NMS and top-k cuts, compared as sets: proposals and detections."""

from __future__ import annotations

import torch
from near_ties import Candidates, candidates, unexplained
from recordings import Recording
from tolerances import LOGITS, RPN_DELTAS, RPN_LOGITS
from torch import Tensor

from r3cnn.ops.boxes import clip_boxes, decode_boxes
from r3cnn.roi.heads import RoIHeads
from r3cnn.roi.loop_output import LoopOutput
from r3cnn.rpn import RPN
from r3cnn.rpn.rpn import ProposalSettings
from r3cnn.structures import Detections, Rois

ULP = 2.0**-23  # of a score near 1
COORDINATE = 2.0**-14  # pixels, two steps of float32 near 320
UNDECIDED = 0.25  # share of a list that rounding may decide; with more of it open a comparison would show little


def proposal_candidates(
    rpn: RPN, features: tuple[Tensor, ...], limits: Tensor, image: int, settings: ProposalSettings
) -> Candidates:
    """Every anchor of one image as a scored box, with the outcome of cut, NMS and cut."""
    logits, deltas = rpn.head([level[image : image + 1] for level in features])
    anchors = rpn.anchors([(x.shape[-2], x.shape[-1]) for x in logits], logits[0].device)
    levels = []
    for level, level_anchors in enumerate(anchors):
        scores = logits[level].permute(0, 2, 3, 1).flatten().sigmoid()
        moves = deltas[level].permute(0, 2, 3, 1).reshape(-1, 4)
        boxes = clip_boxes(decode_boxes(level_anchors, moves, 1.0)[None], limits[image : image + 1])[0]
        margins = scores * (1 - scores) * RPN_LOGITS + ULP
        sides = torch.maximum(boxes[:, 2:] - boxes[:, :2], level_anchors[:, 2:] - level_anchors[:, :2])
        pixels = 2 * RPN_DELTAS * sides.amax(dim=1) + COORDINATE  # a corner moves with the centre and with the size
        group = torch.full_like(scores, level, dtype=torch.int64)
        levels.append(_running(candidates(boxes, scores, group, margins, pixels).top(settings.per_level)))
    every = [torch.cat([getattr(level, name) for level in levels]) for name in vars(levels[0])]
    return Candidates(*every).nms(settings.nms_threshold).top(settings.per_image)


def detection_candidates(
    heads: RoIHeads, last: LoopOutput, probabilities: Tensor, limits: Tensor, pixels: float
) -> Candidates:
    """Every box and class of one image as a candidate, with the outcome of threshold, NMS and cut.

    Args:
        heads: Give the standard deviations of the deltas and the thresholds.
        last: The last loop.
        probabilities: (R, K + 1) after all loops.
        limits: (1, 4) of the image.
        pixels: How far a coordinate may be off.
    """
    scores = probabilities[:, :-1]
    deltas = last.box.deltas.unflatten(1, (-1, 4))  # (R, 1 or K, 4)
    boxes = clip_boxes(decode_boxes(last.rows.boxes[:, None], deltas, heads.delta_stds[last.head])[None], limits)[0]
    boxes, group = boxes.expand(*scores.shape, 4), torch.arange(scores.shape[1]).expand_as(scores)
    # One logit off by d moves a probability p by p (1 - p) d; all of them at the worst by twice that.
    margins = 2 * scores * (1 - scores) * LOGITS + ULP
    off = torch.full((scores.numel(),), pixels)
    every = candidates(boxes.flatten(0, 1), scores.flatten(), group.flatten(), margins.flatten(), off)
    possible = _running(every.above(heads.detection.score_threshold))
    return possible.nms(heads.detection.nms_threshold).top(heads.detection.max_detections)


def _running(outcome: Candidates) -> Candidates:
    """Only what is still in the running."""
    rows = outcome.possible
    return Candidates(*(getattr(outcome, name)[rows] for name in vars(outcome)))


def assert_same_list(
    outcome: Candidates, boxes: Tensor, scores: Tensor | None, labels: Tensor | None, what: str
) -> None:
    """Each row is one of the possible boxes, each sure box is one of the rows, and few decisions are open."""
    without, missing = unexplained(outcome, boxes, scores, labels)
    assert not without, f"{what}: rows {without} of {len(boxes)} are no box that rounding allows"
    assert not missing, f"{what}: boxes {outcome.boxes[missing].tolist()} are missing and no rounding explains it"
    undecided = int((outcome.possible & ~outcome.sure).sum())
    assert undecided <= max(2, UNDECIDED * len(boxes)), f"{what}: rounding decides {undecided} of {len(boxes)} rows"


def assert_same_proposals(
    rpn: RPN,
    features: tuple[Tensor, ...],
    found: Rois,
    limits: Tensor,
    settings: ProposalSettings,
    recorded: list[Tensor],
) -> None:
    """Our proposals and the recorded ones (n, 5) of every image are what rounding allows."""
    for image, rows in enumerate(recorded):
        outcome = proposal_candidates(rpn, features, limits, image, settings)
        assert_same_list(outcome, rows[:, :4], rows[:, 4], None, f"recorded proposals of image {image}")
        ours = found.boxes[image][found.valid[image]]
        assert_same_list(outcome, ours, None, None, f"our proposals of image {image}")


def assert_same_detections(
    outcome: Candidates, found: Detections, recorded: Recording, prefix: str, scale: Tensor
) -> None:
    """Our detections and the recorded ones of one image are what rounding allows."""
    rows, labels = recorded.tensor(f"{prefix}/det_bboxes"), recorded.tensor(f"{prefix}/det_labels")
    assert_same_list(outcome, rows[:, :4] * scale, rows[:, 4], labels, f"recorded {prefix}")
    assert_same_list(outcome, found.boxes, found.scores, found.labels, f"our {prefix}")
