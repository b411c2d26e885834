"""Inference equals the original's: every stage fed with what was recorded before it, whole chains as sets.

Each tolerance is four times what the original moved by when only its kernels or thread count changed (``noise.json``).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from recordings import Recording, as_rois, limits_of, load_features, load_model, one_image
from torch import Tensor

from r3cnn.detector import RCNN
from r3cnn.roi.training_rois import Samples
from r3cnn.structures import Detections

C_TO_P = 4 * 6.7e-6  # features of backbone and pyramid
RPN_LOGITS, RPN_DELTAS = 4 * 2.7e-5, 4 * 4.4e-6
ROI_FEATURES, LOGITS, DELTAS = 4 * 1.1e-5, 4 * 7e-5, 4 * 1.5e-5  # of one loop from recorded RoIs
REFINED = 4 * 1.4e-4  # pixels, after one loop
MASKS = 4 * 2.3e-4  # merged probabilities
# A box and its score after the last loop; the error grows from loop to loop.
DETECTIONS = {1: 4 * 6.5e-4, 2: 4 * 1.4e-3, 3: 4 * 1.7e-3, 4: 4 * 6e-3, 5: 4 * 2.7e-2}
IMAGES = (0, 1)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def loops_of(recording: Recording, run: str) -> int:
    return int(recording.manifest["roi_test"][f"{run}/img0"]["n_bbox_calls"])


def configure(model: RCNN, run: str, loops: int) -> None:
    """Evaluation loops and score fusion of a recorded run; a single head is repeated."""
    schedule = model.schedule
    heads = schedule.heads if loops == len(schedule.heads) else [0] * loops
    model.roi_heads.schedule = type(schedule)(
        **{**vars(schedule), "eval_heads": heads, "score_fusion": "max" if run.endswith("maxcls") else "mean_logits"}
    )


@torch.no_grad()
def test_backbone_and_pyramid_features_equal(golden: Path, recording: Recording) -> None:
    model = load_model(golden, recording.name)
    maps = model.backbone(torch.from_numpy(recording.inputs["img"]))
    levels = load_features(golden, recording.name)
    named = {f"c{i + 2}": x for i, x in enumerate(maps)} | {f"p{i + 2}": x for i, x in enumerate(levels)}
    for key, values in named.items():
        assert_close(recording.sampled(values), recording.tensor(f"feat/{key}_sample"), C_TO_P)
        expected = recording.manifest["features"][key]
        assert list(values.shape) == expected["shape"]
        assert float(values.mean()) == pytest.approx(expected["mean"], abs=C_TO_P)
        assert float(values.abs().max()) == pytest.approx(expected["absmax"], abs=C_TO_P)


@torch.no_grad()
def test_rpn_outputs_equal(golden: Path, recording: Recording) -> None:
    logits, deltas = load_model(golden, recording.name).rpn.head(load_features(golden, recording.name))
    for level in range(5):
        assert_close(recording.sampled(logits[level]), recording.tensor(f"feat/rpn_cls{level}_sample"), RPN_LOGITS)
        assert_close(recording.sampled(deltas[level]), recording.tensor(f"feat/rpn_reg{level}_sample"), RPN_DELTAS)


@torch.no_grad()
def test_proposals_equal_as_sets(golden: Path, recording: Recording) -> None:
    features = load_features(golden, recording.name)
    rois = load_model(golden, recording.name).rpn.propose(features, recording.sizes)
    for image in IMAGES:
        expected = recording.tensor(f"rpn_test/img{image}_proposals")[:, :4]
        found = rois.boxes[image][rois.valid[image]]
        distance = (found[:, None] - expected[None]).abs().amax(dim=-1)
        assert len(found) == len(expected)
        assert int((distance.amin(dim=0) > 0.01).sum()) == 0
        assert int((distance.amin(dim=1) > 0.01).sum()) == 0


@torch.no_grad()
def test_each_loop_equals_from_the_rois_recorded_before_it(golden: Path, recording: Recording, eval_run: str) -> None:
    model, features = load_model(golden, recording.name), load_features(golden, recording.name)
    checked = 0
    for key in recording.arrays:
        match = re.fullmatch(rf"{eval_run}/img(\d)/stage(\d)_rois", key)
        if not match:
            continue
        run, image, loop = eval_run, int(match[1]), int(match[2])
        configure(model, run, loops_of(recording, run))
        head = model.schedule.eval_heads[loop]
        limits = limits_of([recording.sizes[image]])
        output = model.roi_heads.run_loops(
            one_image(features, image),
            as_rois([recording.tensor(key)[:, 1:]]),
            limits,
            [head],
            lambda _, rois: Samples.unlabelled(rois),
        )[0]
        prefix = key.removesuffix("_rois")
        pooled = model.roi_heads.box_extractor(one_image(features, image), output.rows)
        assert_close(recording.sampled(pooled), recording.tensor(f"{prefix}_roifeat_sample"), ROI_FEATURES)
        assert_close(output.box.logits[:32], recording.tensor(f"{prefix}_cls_logits_first32"), LOGITS)
        deltas = f"{prefix}_bbox_pred" if f"{prefix}_bbox_pred" in recording.arrays else f"{prefix}_bbox_pred_first32"
        expected = recording.tensor(deltas)
        assert_close(output.box.deltas[: len(expected)], expected, DELTAS)
        after = f"{run}/img{image}/stage{loop + 1}_rois"
        if after in recording.arrays:
            assert_close(output.refined.boxes[0], recording.tensor(after)[:, 1:], REFINED)
        checked += 1
    assert checked >= len(IMAGES)


@torch.no_grad()
def test_detections_and_masks_equal_as_sets(golden: Path, recording: Recording, eval_run: str) -> None:
    model, features = load_model(golden, recording.name), load_features(golden, recording.name)
    loops = loops_of(recording, eval_run)
    configure(model, eval_run, loops)
    for image in IMAGES:
        first = recording.manifest["roi_test_first_n_proposals"]
        rois = as_rois([recording.tensor(f"rpn_test/img{image}_proposals")[:first, :4]])
        limits = limits_of([recording.sizes[image]])
        found = model.roi_heads.detect(one_image(features, image), rois, limits)[0]
        match_detections(recording, f"{eval_run}/img{image}", found, DETECTIONS[loops])


def match_detections(recording: Recording, prefix: str, found: Detections, tolerance: float) -> None:
    """Each recorded detection has a partner of the same label, box, score and mask."""
    expected, labels = recording.tensor(f"{prefix}/det_bboxes"), recording.tensor(f"{prefix}/det_labels")
    boxes = expected[:, :4] * torch.tensor(scale_of(prefix))
    assert len(found) == len(expected)
    distance = (found.boxes[None] - boxes[:, None]).abs().amax(dim=-1)  # (recorded, found)
    distance = distance + 1e6 * (found.labels[None] != labels[:, None])
    distance = torch.maximum(distance, (found.scores[None] - expected[:, None, 4]).abs())
    best, partner = distance.min(dim=1)
    assert float(best.max()) < tolerance
    assert len(partner.unique()) == len(partner)
    masks = recording.tensor(f"{prefix}/mask28_top20")
    assert_close(found.masks[partner[: len(masks)]], masks, MASKS * max(1.0, tolerance / DETECTIONS[3]))


def scale_of(prefix: str) -> list[float]:
    """What the boxes of a run were divided by."""
    return [1.6, 1.5, 1.6, 1.5] if prefix.startswith("roi_test_rescale") else [1.0] * 4
