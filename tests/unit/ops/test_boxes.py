"""IoU and the delta coder against numbers worked out by hand."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from r3cnn.ops.boxes import clip_boxes, decode_boxes, encode_boxes, image_limits, pairwise_iou

STDS = torch.tensor([0.1, 0.1, 0.2, 0.2])


@st.composite
def boxes(draw: st.DrawFn) -> Tensor:
    rows = draw(st.lists(st.tuples(*[st.floats(0, 500, width=32)] * 2, *[st.floats(1, 200, width=32)] * 2), min_size=1))
    x, y, w, h = torch.tensor(rows, dtype=torch.float32).unbind(1)
    return torch.stack([x, y, x + w, y + h], dim=1)


def test_iou_of_half_overlapping_squares_is_one_third() -> None:
    iou = pairwise_iou(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]]))
    torch.testing.assert_close(iou, torch.tensor([[1 / 3, 1.0, 0.0]]))


def test_iou_of_boxes_without_area_is_zero() -> None:
    point = torch.tensor([[1.0, 1, 1, 1]])
    assert pairwise_iou(point, point).item() == 0


@given(boxes(), boxes())
def test_iou_is_symmetric_and_within_zero_and_one(a: Tensor, b: Tensor) -> None:
    iou = pairwise_iou(a, b)
    torch.testing.assert_close(iou, pairwise_iou(b, a).T)
    assert ((iou >= 0) & (iou <= 1 + 1e-6)).all()


@given(boxes())
def test_decode_inverts_encode(a: Tensor) -> None:
    b = a.roll(1, 0)
    # Ratios beyond 1000 / 16 are cut by the decoder on purpose.
    within = ((b[:, 2:] - b[:, :2]) / (a[:, 2:] - a[:, :2])).log().abs().amax(1) < math.log(1000 / 16)
    decoded = decode_boxes(a, encode_boxes(a, b, STDS), STDS)
    torch.testing.assert_close(decoded[within], b[within], atol=0.02, rtol=1e-4)


def test_encoding_equals_the_formula_of_faster_rcnn() -> None:
    box, goal = torch.tensor([10.0, 20, 30, 60]), torch.tensor([15.0, 10, 35, 90])
    expected = torch.tensor([5 / 20, 10 / 40, math.log(20 / 20), math.log(80 / 40)]) / STDS
    torch.testing.assert_close(encode_boxes(box, goal, STDS), expected)


def test_decoder_limits_the_growth_of_a_box() -> None:
    grown = decode_boxes(torch.tensor([0.0, 0, 16, 16]), torch.tensor([0.0, 0, 99, -99]), 1.0)
    torch.testing.assert_close(grown[2] - grown[0], torch.tensor(1000.0))
    torch.testing.assert_close(grown[3] - grown[1], torch.tensor(16 * 16 / 1000))


def test_each_image_clips_its_own_boxes() -> None:
    limits = image_limits([(10, 20), (30, 40)], torch.device("cpu"))
    clipped = clip_boxes(torch.tensor([[[-5.0, -5, 50, 50]]] * 2), limits)
    assert clipped.tolist() == [[[0, 0, 20, 10]], [[0, 0, 40, 30]]]
