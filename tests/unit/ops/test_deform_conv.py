"""Deformable convolution as a gather against torchvision's operator, values and gradients, in float64."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import deform_conv2d

from r3cnn.ops.deform_conv import gather_deform_conv2d

GEOMETRIES = [((1, 1), (1, 1), (1, 1)), ((2, 2), (1, 1), (1, 1)), ((1, 2), (2, 0), (2, 1))]


@pytest.mark.parametrize("reach", [0.5, 20.0], ids=["near", "beyond the border"])
@pytest.mark.parametrize(("stride", "padding", "dilation"), GEOMETRIES)
def test_values_and_gradients_are_those_of_torchvision(
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], reach: float
) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 4, 9, 12, dtype=torch.float64), torch.randn(5, 4, 3, 2, dtype=torch.float64)
    bias = torch.randn(5, dtype=torch.float64)
    shape = [
        (side + 2 * pad - dilate * (kernel - 1) - 1) // step + 1
        for side, pad, dilate, kernel, step in zip((9, 12), padding, dilation, (3, 2), stride, strict=True)
    ]
    offset = torch.randn(2, 12, *shape, dtype=torch.float64) * reach
    found = []
    for operator in (deform_conv2d, gather_deform_conv2d):
        inputs = [tensor.clone().requires_grad_() for tensor in (x, offset, weight, bias)]
        output = operator(*inputs, stride=stride, padding=padding, dilation=dilation)
        output.sin().sum().backward()
        found.append((output, *(tensor.grad for tensor in inputs)))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_offset_that_is_not_a_number_shows_in_the_output_and_crashes_nothing() -> None:
    offset = torch.zeros(1, 18, 4, 4)
    offset[0, 0, 2, 2] = float("nan")
    geometry = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    output = gather_deform_conv2d(torch.ones(1, 3, 4, 4), offset, torch.ones(2, 3, 3, 3), None, **geometry)
    assert output.isnan().sum() == 2  # both channels at that place
