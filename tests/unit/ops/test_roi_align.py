"""The gather of RoI features against torchvision's RoIAlign, values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from r3cnn.ops.roi_align import gather_rois

STRIDES = (4, 8)
ROUNDING = 2e-6


def levels() -> list[Tensor]:
    """Two levels of two images of 64x96 pixels."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 6, 64 // stride, 96 // stride, generator=generator, dtype=torch.float32).requires_grad_()
        for stride in STRIDES
    ]


def expected(features: list[Tensor], image: Tensor, boxes: Tensor, level: Tensor, side: int, ratio: int) -> Tensor:
    rows = [torch.cat([i[None].float(), box])[None] for i, box in zip(image, boxes, strict=True)]
    pooled = [
        roi_align(features[int(n)], row, side, 1 / STRIDES[int(n)], ratio, aligned=True)
        for n, row in zip(level, rows, strict=True)
    ]
    return torch.cat(pooled)


coordinate = st.floats(-20, 120, width=32)
roi = st.tuples(st.tuples(coordinate, coordinate, coordinate, coordinate), st.integers(0, 1), st.integers(0, 1))


@settings(max_examples=60, deadline=None)
@given(rois=st.lists(roi, min_size=1, max_size=6), side=st.sampled_from([2, 7]), ratio=st.sampled_from([-1, 2]))
def test_values_and_gradients_are_those_of_torchvision(
    rois: list[tuple[tuple[float, ...], int, int]], side: int, ratio: int
) -> None:
    """Any RoI: without area, outside of the image, larger than it."""
    corners, image, level = (torch.tensor(list(part)) for part in zip(*rois, strict=True))
    boxes = corners.view(-1, 2, 2).sort(dim=1).values.flatten(1)
    features, others = levels(), levels()
    ours = gather_rois(features, image, boxes, level, strides=STRIDES, side=side, sampling_ratio=ratio)
    theirs = expected(others, image, boxes, level, side, ratio)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=ROUNDING)
    torch.autograd.backward([ours.sin().sum()])
    torch.autograd.backward([theirs.sin().sum()])
    for own, other in zip(features, others, strict=True):
        wanted = torch.zeros_like(own) if other.grad is None else other.grad
        torch.testing.assert_close(own.grad, wanted, rtol=1e-5, atol=10 * ROUNDING)


def test_a_ramp_gives_the_centres_of_the_bins() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)  # the value of a cell is its column
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])  # in cells of stride 4: 1.5 to 9.5 from the centre of cell 0
    zero = torch.zeros(1, dtype=torch.int64)
    pooled = gather_rois([ramp], zero, box, zero, strides=[4], side=4, sampling_ratio=-1)
    torch.testing.assert_close(pooled[0, 0], torch.tensor([2.5, 4.5, 6.5, 8.5]).expand(4, 4))


def test_a_roi_alone_is_the_roi_among_others_to_the_bit() -> None:
    features = levels()
    boxes = torch.tensor([[3.0, 5, 40, 61], [0, 0, 96, 20], [50, 30, 58, 37]])
    image, level = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0])
    together = gather_rois(features, image, boxes, level, strides=STRIDES, side=7, sampling_ratio=-1)
    for row in range(3):
        one = slice(row, row + 1)
        alone = gather_rois(features, image[one], boxes[one], level[one], strides=STRIDES, side=7, sampling_ratio=-1)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("ratio", [-1, 2])
def test_no_roi_and_places_outside_give_zeros_and_no_gradient(ratio: int) -> None:
    features, none = levels(), torch.zeros(0, dtype=torch.int64)
    nothing = gather_rois(features, none, torch.zeros(0, 4), none, strides=STRIDES, side=7, sampling_ratio=ratio)
    assert nothing.shape == (0, 6, 7, 7)
    boxes = torch.tensor([[300.0, 300, 300, 300], [400, 400, 410, 420], [float("nan"), 1, float("inf"), 5]])
    zero = torch.zeros(3, dtype=torch.int64)
    point = gather_rois(features, zero, boxes, zero, strides=STRIDES, side=7, sampling_ratio=ratio)
    assert point.abs().max() == 0
    (nothing.sum() + point.sum()).backward()
    assert features[0].grad.abs().max() == 0


def test_a_sample_that_rounding_puts_one_cell_further_takes_nothing_from_there() -> None:
    boxes, zero = torch.tensor([[3.9999998, 3, 144, 60], [90, 40, 3, 50]]), torch.zeros(2, dtype=torch.int64)
    features = [torch.randn(1, 3, 40, 60)]
    ours = gather_rois(features, zero, boxes, zero, strides=[4], side=7, sampling_ratio=-1)
    theirs = roi_align(features[0], torch.cat([torch.zeros(1, 1), boxes[:1]], 1), 7, 1 / 4, -1, aligned=True)
    torch.testing.assert_close(ours[:1], theirs, rtol=0, atol=ROUNDING)
    assert ours[1].abs().max() == 0  # upside down


def test_half_precision_features_are_summed_in_float32() -> None:
    features = [level.detach().bfloat16() for level in levels()]
    boxes, zero = torch.tensor([[3.0, 5, 90, 61]]), torch.zeros(1, dtype=torch.int64)
    pooled = gather_rois(features, zero, boxes, zero, strides=STRIDES, side=7, sampling_ratio=-1)
    exact = expected([level.float() for level in features], zero, boxes, zero, 7, -1)
    assert pooled.dtype == torch.bfloat16
    assert torch.equal(pooled, exact.bfloat16()) or (pooled.float() - exact).abs().max() < 0.01
