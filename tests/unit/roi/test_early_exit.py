"""RoIs that leave the loops early at inference."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny import images, model, schedule
from torch import Tensor

from r3cnn.detector import RCNN
from r3cnn.roi.early_exit import EarlyExit, LoopExit, StayInLoops
from r3cnn.roi.inference import SelectedBoxes, select_boxes
from r3cnn.roi.loop_output import LoopOutput
from r3cnn.structures import Detections

NEVER = EarlyExit(background_above=1.0, score_change=0.0, box_iou=1.0)
AT_ONCE = EarlyExit(background_above=0.0, score_change=0.0, box_iou=1.0)
AFTER_TWO = EarlyExit(background_above=1.0, score_change=1.0, box_iou=0.0)
SOME = EarlyExit(background_above=0.12, score_change=0.05, box_iou=0.3)
FIELDS = ("boxes", "scores", "labels", "masks", "mask_scores")


def network_of(heads: tuple[int, ...] = (0, 0, 0), **settings: bool) -> RCNN:
    """A tiny network whose scores are less extreme than usual."""
    network = model(schedule(heads), **settings)
    with torch.no_grad():
        for head in network.roi_heads.box_heads:
            head.logits.weight *= 0.02
    return network


def detect(network: RCNN, rule: LoopExit) -> list[list[Detections]]:
    network.roi_heads.early_exit = rule
    return network.detect_per_loop(*images(2))


def outputs_of(network: RCNN, rule: LoopExit) -> list[LoopOutput]:
    batch, sizes = images(2)
    network.roi_heads.early_exit = rule
    with torch.no_grad():
        return network.roi_heads.inference_loops(*network._inference_inputs(batch, sizes))


def count_rows(network: RCNN) -> list[int]:
    """Rows that the box heads' extractor will be given in each loop, empty ones included."""
    counts: list[int] = []
    network.roi_heads.box_extractor.register_forward_pre_hook(lambda _, given: counts.append(len(given[1].boxes)))
    return counts


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("heads", [(0, 0, 0), (0, 1, 2)])
@pytest.mark.parametrize("agnostic", [True, False])
def test_thresholds_that_nothing_reaches_give_the_plain_loops_to_the_bit(
    static: bool, heads: tuple[int, ...], agnostic: bool
) -> None:
    network = network_of(heads, static=static, agnostic=agnostic)
    plain, with_exit = detect(network, StayInLoops()), detect(network, NEVER)
    assert sum(len(found) for loop in plain for found in loop) > 0
    for before, after in zip(plain, with_exit, strict=True):
        for a, b in zip(before, after, strict=True):
            assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("agnostic", [True, False])
def test_when_all_rois_leave_after_loop_one_the_detections_are_those_of_one_loop(static: bool, agnostic: bool) -> None:
    network = network_of((0, 1, 2), static=static, agnostic=agnostic)
    network.roi_heads.delta_stds *= torch.tensor([[1.0], [0.5], [1 / 3]])  # as in HTC
    one = detect(network, StayInLoops())[0]
    counts = count_rows(network)
    found = detect(network, AT_ONCE)
    assert counts[0] > 0
    assert counts[1:] == [0, 0]
    for loop in found:
        for a, b in zip(loop, one, strict=True):
            assert len(a) > 0
            for name in FIELDS:
                torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-4)


def test_scores_and_boxes_settle_after_two_loops_at_the_earliest() -> None:
    network = network_of(static=False)
    plain = outputs_of(network, StayInLoops())
    counts = count_rows(network)
    found = outputs_of(network, AFTER_TWO)
    assert counts == [80, 80, 0]
    assert torch.equal(found[1].refined.boxes, plain[1].refined.boxes)
    assert torch.equal(found[2].refined.boxes, found[1].refined.boxes)
    assert torch.equal(found[2].box.logits, found[1].box.logits)


@pytest.mark.parametrize("static", [True, False])
def test_a_roi_that_left_keeps_its_logits_and_its_box_and_the_others_go_on_as_if_nothing_happened(static: bool) -> None:
    network = network_of(static=static)
    plain = outputs_of(network, StayInLoops())
    counts = count_rows(network)
    found = outputs_of(network, SOME)
    assert counts[0] > counts[1] > counts[2] > 0
    has_left = torch.zeros(len(plain[0].rows.slot), dtype=torch.bool)
    for loop in (1, 2):
        has_left |= SOME.leaves(found[:loop])
        before, after, same = found[loop - 1], found[loop], plain[loop]
        boxes = [one.refined.boxes.flatten(0, 1)[one.rows.slot] for one in (before, after, same)]
        assert torch.equal(after.box.logits[has_left], before.box.logits[has_left])
        assert torch.equal(boxes[1][has_left], boxes[0][has_left])
        torch.testing.assert_close(after.box.logits[~has_left], same.box.logits[~has_left])
        torch.testing.assert_close(boxes[1][~has_left], boxes[2][~has_left])
    assert 0 < int(has_left.sum()) < len(has_left)


def test_the_mask_of_a_detection_is_that_of_as_many_loops_as_its_roi_went_through() -> None:
    network = network_of()
    outputs = outputs_of(network, SOME)
    limits = torch.tensor([[96.0, 64, 96, 64]]).expand(2, 4)
    probabilities, boxes = network.roi_heads.classify(outputs, limits, "mean_logits")
    valid = outputs[-1].samples.rois.valid
    selected = select_boxes(probabilities, boxes, valid, network.roi_heads.detection)

    def predict(chosen: SelectedBoxes, loops: int) -> tuple[Tensor, Tensor]:
        return torch.full((*chosen.labels.shape, 2, 2), float(loops)), chosen.scores

    masks, scores = SOME.masks(predict, selected, outputs)
    moved = [(now.box.logits != before.box.logits).any(dim=1) for before, now in pairwise(outputs)]
    loops = outputs[-1].rows.scatter(1.0 + moved[0] + moved[1], valid).gather(1, selected.roi)
    taken = selected.rois.valid
    assert masks.shape == (*taken.shape, 2, 2)
    assert torch.equal(masks[taken][:, 0, 1], loops[taken])
    assert torch.equal(scores[taken], selected.scores[taken])
    assert len(loops[taken].unique()) > 1


def test_compact_and_static_shapes_find_the_same_with_early_exit() -> None:
    static, compact = (detect(network_of(static=static), SOME) for static in (True, False))
    for left, right in zip(static, compact, strict=True):
        for a, b in zip(left, right, strict=True):
            assert len(a) > 0
            for name in FIELDS:
                torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-4, atol=1e-4)


def test_a_trace_shows_that_rois_which_left_are_handed_on_as_they_are() -> None:
    trace = outputs_of(network_of(), AT_ONCE)[2].trace
    assert torch.equal(trace.kept.boxes, trace.refined)
    assert bool(trace.kept.valid.any())


def test_raising_the_background_threshold_lets_no_more_rois_leave() -> None:
    network = network_of()
    outputs = outputs_of(network, NEVER)
    gone = [replace(SOME, background_above=value).leaves(outputs) for value in (0.05, 0.1, 0.2)]
    assert all(bool((more | ~less).all()) for more, less in pairwise(gone))
    assert int(gone[0].sum()) > int(gone[2].sum())


@pytest.mark.parametrize("name", ["background_above", "score_change", "box_iou"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_no_share_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\], got"):
        replace(NEVER, **{name: value})
