"""Assignment by IoU, rule by rule."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from r3cnn.ops.matching import Matcher, Matches, outside_crowds

GT = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
YES = torch.ones(2, dtype=torch.bool)


def match(boxes: list[list[float]], matcher: Matcher, gt: torch.Tensor = GT) -> Matches:
    found = torch.tensor(boxes)
    return matcher(found, torch.ones(len(found), dtype=torch.bool), gt, YES[: len(gt)])


def test_iou_at_the_threshold_is_foreground() -> None:
    result = match([[0.0, 0, 10, 5]], Matcher(0.5, 0.5, 2.0))
    assert result.iou.tolist() == [0.5]
    assert result.positive.tolist() == [True]


def test_iou_between_the_thresholds_is_neither() -> None:
    result = match([[0.0, 0, 10, 5]], Matcher(0.7, 0.3, 2.0))
    assert not result.positive.any()
    assert not result.negative.any()


def test_ground_truth_claims_its_best_box_even_below_the_threshold() -> None:
    result = match([[0.0, 0, 10, 4], [0, 0, 10, 5], [40, 0, 50, 10]], Matcher(0.7, 0.3, 0.3))
    assert result.positive.tolist() == [False, True, False]
    assert result.gt[1] == 0


def test_claim_wins_over_a_better_match_with_another_ground_truth() -> None:
    near = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 16]])
    result = match([[0.0, 0, 10, 11]], Matcher(0.5, 0.5, 0.5), near)
    assert result.positive.tolist() == [True]
    assert result.gt.tolist() == [1]  # both claim it, the last one gets it, though the first overlaps more


def test_without_ground_truth_everything_is_negative() -> None:
    result = match([[0.0, 0, 10, 5]], Matcher(0.5, 0.5, 0.5), GT[:0])
    assert result.negative.all()
    assert result.iou.tolist() == [0.0]


def test_padded_ground_truth_and_boxes_take_no_part() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    result = Matcher(0.5, 0.5, 0.5)(boxes, torch.tensor([True, False]), GT, torch.tensor([False, True]))
    assert not result.positive.any()
    assert result.negative.tolist() == [True, False]


@given(st.lists(st.floats(0, 20), min_size=1, max_size=8), st.floats(0.05, 0.9), st.floats(0, 0.1))
def test_raising_the_threshold_never_adds_foreground(shifts: list[float], low: float, more: float) -> None:
    boxes = [[shift, 0.0, shift + 10, 10.0] for shift in shifts]
    at_low, at_high = (match(boxes, Matcher(t, t, t)).positive for t in (low, low + more))
    assert not (at_high & ~at_low).any()


def test_boxes_that_lie_in_a_crowd_by_more_than_the_limit_are_told_from_the_others() -> None:
    crowds = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    boxes = torch.tensor([[2.0, 2, 8, 8], [5, 0, 15, 10], [4, 0, 14, 10], [20, 20, 30, 30]])  # 1, 0.5, 0.6, 0 inside
    found = outside_crowds(boxes.expand(2, 4, 4), crowds, 0.5)
    assert found.tolist() == [[False, True, False, True], [True] * 4]


def test_without_crowds_every_box_counts() -> None:
    assert outside_crowds(torch.rand(2, 3, 4), torch.zeros(2, 0, 4), 0.5).all()
