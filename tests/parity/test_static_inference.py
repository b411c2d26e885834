"""Inference as it runs on accelerators, with shapes that never depend on the data, equals the original as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from checks import assert_recorded
from networks import limits_of, load_features, load_model
from recordings import Recording, runs_of
from replay import configure, detections_without_masks, replay_loops, scale_of
from selection import assert_same_detections, assert_same_proposals, detection_candidates
from tolerances import DELTAS, LOGITS, POOLED, refined
from torch.nn import functional as F

from r3cnn.detector import RCNN
from r3cnn.ops.fusion import fuse_scores

# One of every kind of backbone, head and extractor.
NETWORKS = ("mask_rcnn", "htc", "r3cnn_naive", "r3cnn_advanced", "mask_rcnn_groie", "mask_rcnn_gcnet", "mask_rcnn_dcn")


@pytest.fixture
def model(recording: Recording) -> Iterator[RCNN]:
    """The network with static shapes; what others computed without them is not taken from a cache."""
    network = load_model(recording)
    replay_loops.cache_clear()
    network.roi_heads.static_shapes = network.rpn.static_shapes = True
    yield network
    network.roi_heads.static_shapes = network.rpn.static_shapes = None
    replay_loops.cache_clear()


@pytest.mark.slow
@torch.no_grad()
def test_proposals_are_the_recorded_ones(recording: Recording, model: RCNN) -> None:
    features, limits = load_features(recording), limits_of(recording.sizes)
    found, recorded = model.rpn.propose(features, recording.sizes), recording.per_image("rpn_test/img{}_proposals")
    assert_same_proposals(model.rpn, features, found, limits, model.rpn.eval_proposals, recorded)


@pytest.mark.slow
@torch.no_grad()
def test_loops_and_detections_are_the_recorded_ones(recording: Recording, model: RCNN) -> None:
    for run in runs_of(recording, "eval")[:1]:
        model, prefix = configure(model, recording, run), f"{run}/img0"
        pixels, limits = refined(recording.sizes), limits_of(recording.sizes[:1])
        loops = replay_loops(recording, run, 0)
        for loop, (entering, output, pooled) in enumerate(zip(*vars(loops).values(), strict=True)):
            ours = {
                "rois": (F.pad(entering, (1, 0)), 0.0 if loop == 0 else pixels),
                "roifeat": (pooled, POOLED),
                "cls_logits": (output.box.logits, LOGITS),
                "bbox_pred": (output.box.deltas, DELTAS),
            }
            assert_recorded(recording, f"{prefix}/stage{loop}_", ours)
        probabilities = fuse_scores([output.box.logits for output in loops.outputs], model.schedule.score_fusion)
        detections = detections_without_masks(model, recording, loops.outputs, 0)
        outcome = detection_candidates(model.roi_heads, loops.outputs[-1], probabilities, limits, pixels)
        assert_same_detections(outcome, detections, recording, prefix, scale_of(recording, run, 0))
