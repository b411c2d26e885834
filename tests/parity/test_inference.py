"""Inference equals the original's: every stage is fed with what was recorded before it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from checks import assert_close, assert_recorded, assert_statistics
from networks import limits_of, load_features, load_model
from recordings import Recording
from replay import configure, detections_without_masks, replay_loops, replay_masks, scale_of
from selection import assert_same_detections, assert_same_proposals, detection_candidates
from tolerances import DELTAS, FEATURES, LOGITS, MASK_IOU, MASK_LOGITS, MASKS, POOLED, RPN_DELTAS, RPN_LOGITS, refined
from torch import Tensor

from r3cnn.evaluation.paste import paste_and_encode
from r3cnn.ops.fusion import fuse_scores
from r3cnn.structures import Size


@torch.no_grad()
def test_backbone_and_pyramid_features_equal(recording: Recording) -> None:
    maps = load_model(recording).backbone(recording.images)
    named = {f"c{level}": values for level, values in enumerate(maps, start=2)}
    named |= {f"p{level}": values for level, values in enumerate(load_features(recording), start=2)}
    assert_recorded(
        recording, "feat/c", {key[1:]: (values, FEATURES) for key, values in named.items() if key[0] == "c"}
    )
    assert_recorded(
        recording, "feat/p", {key[1:]: (values, FEATURES) for key, values in named.items() if key[0] == "p"}
    )
    for key, values in named.items():
        assert_statistics(values, recording.manifest["features"][key], FEATURES, key)


@torch.no_grad()
def test_rpn_outputs_equal(recording: Recording) -> None:
    logits, deltas = load_model(recording).rpn.head(load_features(recording))
    ours = {f"cls{level}": (values, RPN_LOGITS) for level, values in enumerate(logits)}
    ours |= {f"reg{level}": (values, RPN_DELTAS) for level, values in enumerate(deltas)}
    assert_recorded(recording, "feat/rpn_", ours)
    for key, (values, tolerance) in ours.items():
        assert_statistics(values, recording.manifest["features"][f"rpn_{key}"], tolerance, key)


@torch.no_grad()
def test_proposals_equal_as_sets(recording: Recording) -> None:
    model, features = load_model(recording), load_features(recording)
    found = model.rpn.propose(features, recording.sizes)
    recorded = recording.per_image("rpn_test/img{}_proposals")
    limits = limits_of(recording.sizes)
    assert_same_proposals(model.rpn, features, found, limits, model.rpn.eval_proposals, recorded)


@torch.no_grad()
def test_each_loop_equals_from_the_rois_recorded_before_it(recording: Recording, run: str) -> None:
    for image in recording.image_numbers:
        prefix = f"{run}/img{image}"
        manifest, loops = recording.manifest["roi_test"][prefix], replay_loops(recording, run, image)
        assert len(loops.outputs) == manifest["n_bbox_calls"]
        for loop, (entering, output, pooled) in enumerate(zip(*vars(loops).values(), strict=True)):
            rois = torch.cat([torch.zeros(len(entering), 1), entering], dim=1)  # (R, 5), the first column is the image
            ours = {
                "rois": (rois, 0.0 if loop == 0 else refined(recording.sizes)),
                "roifeat": (pooled, POOLED),
                "cls_logits": (output.box.logits, LOGITS),
                "bbox_pred": (output.box.deltas, DELTAS),
            }
            assert_recorded(recording, f"{prefix}/stage{loop}_", ours)
            for name, ours_name in (("roifeat", "roifeat"), ("cls", "cls_logits"), ("reg", "bbox_pred")):
                assert_statistics(
                    ours[ours_name][0], manifest[f"stage{loop}_{name}"], ours[ours_name][1], f"{prefix} {name}"
                )


@torch.no_grad()
def test_fused_scores_equal_and_detections_equal_as_sets(recording: Recording, run: str) -> None:
    model = configure(load_model(recording), recording, run)
    pixels = refined(recording.sizes)
    for image in recording.image_numbers:
        prefix = f"{run}/img{image}"
        outputs = replay_loops(recording, run, image).outputs
        probabilities = fuse_scores([output.box.logits for output in outputs], model.schedule.score_fusion)
        ours = probabilities.log()
        first = recording.tensor(f"{prefix}/merged_cls_logits_first64")
        assert_close(ours[: len(first)], first.log_softmax(dim=-1), 2 * LOGITS, f"{prefix} fused scores")
        limits = limits_of([recording.sizes[image]])
        detections = detections_without_masks(model, recording, outputs, image)
        outcome = detection_candidates(model.roi_heads, outputs[-1], probabilities, limits, pixels)
        assert_same_detections(outcome, detections, recording, prefix, scale_of(recording, run, image))
        assert_counts(recording, prefix)


def assert_counts(recording: Recording, prefix: str) -> None:
    """What the manifest says about a list of detections that was just compared."""
    manifest, boxes = recording.manifest["roi_test"][prefix], recording.arrays[f"{prefix}/det_bboxes"]
    assert len(boxes) == manifest["n_det"]
    assert len(np.unique(recording.arrays[f"{prefix}/det_labels"])) == manifest["n_det_labels"]
    if len(boxes):
        assert boxes[:, 4].max() == pytest.approx(manifest["score_max"])
        assert boxes[:, 4].min() == pytest.approx(manifest["score_min"])


@torch.no_grad()
def test_masks_of_the_recorded_detections_equal(recording: Recording, run: str) -> None:
    model = configure(load_model(recording), recording, run)
    for image in recording.image_numbers:
        prefix = f"{run}/img{image}"
        manifest, masks = recording.manifest["roi_test"][prefix], replay_masks(model, recording, run, image)
        assert len(masks.logits) == manifest["n_mask_calls"]
        for loop, logits in enumerate(masks.logits):
            assert_recorded(recording, f"{prefix}/mask_loop{loop}_", {"logits": (logits, MASK_LOGITS)})
            assert_statistics(logits, manifest[f"mask_loop{loop}_logits"], MASK_LOGITS, f"{prefix} mask loop {loop}")
        assert_recorded(recording, f"{prefix}/mask28_", {"": (masks.predicted.probabilities, MASKS)})
        check_pasted_areas(recording, run, image, masks.predicted.probabilities)
        assert len(masks.ious) == manifest["n_iou_calls"]
        if masks.ious:
            check_mask_scores(recording, prefix, masks.ious[0], masks.predicted.scores)


def check_pasted_areas(recording: Recording, run: str, image: int, probabilities: Tensor) -> None:
    prefix = f"{run}/img{image}"
    boxes = recording.tensor(f"{prefix}/det_bboxes")[:, :4]
    size = tuple(recording.manifest["roi_test"][prefix]["mask_image_shape"])
    assert_pasted_areas(probabilities, boxes, size, recording.arrays[f"{prefix}/pasted_mask_areas"], prefix)


def assert_pasted_areas(probabilities: Tensor, boxes: Tensor, size: Size, recorded: np.ndarray, what: str) -> None:
    """Pixels whose probability is one half up to rounding may count or not.

    Documented deviation: a box without width or height is empty here. The original divides by that side, puts the
    infinite grid coordinates back to 0 and so pastes the mask's middle row or column around it.
    """
    least, most = (paste_and_encode(probabilities + move, boxes, size).areas for move in (-MASKS, MASKS))
    assert len(recorded) == len(least)
    flat = (boxes[:, 2:] <= boxes[:, :2]).any(dim=1).numpy()
    assert not most[flat].any(), what
    assert (least[~flat] <= recorded[~flat]).all(), what
    assert (recorded[~flat] <= most[~flat]).all(), what
    if flat.any():
        pasted = (recorded[flat] > 0).sum()
        warnings.warn(f"{what}: {flat.sum()} recorded boxes have no area, the original fills {pasted}", stacklevel=2)


def test_only_masks_of_boxes_without_area_may_differ_from_the_original() -> None:
    masks = torch.ones(3, 28, 28)
    boxes = torch.tensor([[2.0, 3.0, 4.0, 3.0], [5.0, 1.0, 5.0, 7.0], [1.0, 1.0, 4.0, 3.0]])
    with pytest.warns(UserWarning, match="2 recorded boxes have no area, the original fills 2"):
        assert_pasted_areas(masks, boxes, (8, 8), np.array([4, 12, 6]), "by hand")  # the original's rule
    with pytest.raises(AssertionError):
        assert_pasted_areas(masks, boxes, (8, 8), np.array([4, 12, 8]), "by hand")


def check_mask_scores(recording: Recording, prefix: str, ious: Tensor, scores: Tensor) -> None:
    own = ious.gather(1, recording.tensor(f"{prefix}/det_labels")[:, None])[:, 0]
    assert_close(own, recording.tensor(f"{prefix}/mask_iou_pred"), MASK_IOU, f"{prefix} mask IoU")
    assert_close(scores, recording.tensor(f"{prefix}/mask_scores"), MASK_IOU, f"{prefix} mask scores")
    statistics = recording.manifest["roi_test"][prefix]["mask_iou_all_classes_sample"]
    assert_statistics(ious, statistics, MASK_IOU, f"{prefix} mask IoU of all classes")
