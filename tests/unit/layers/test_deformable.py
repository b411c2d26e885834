"""Deformable convolution: nothing changes at zero offset, and offsets are (dy, dx) in pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from r3cnn.layers.deformable import DeformableConv2d, deform_block


def conv(stride: int = 1) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 6, 3, stride=stride, padding=1, bias=False)


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2])
def test_a_new_deformable_convolution_computes_what_the_plain_one_did(stride: int) -> None:
    plain, x = conv(stride), torch.randn(2, 4, 9, 11)
    expected = plain(x)
    torch.testing.assert_close(DeformableConv2d(plain)(x), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("dy", "dx"), [(1, 0), (0, 2)])
def test_an_offset_of_whole_pixels_moves_where_the_convolution_looks(dy: int, dx: int) -> None:
    plain, x = conv(), torch.randn(1, 4, 9, 11)
    deformable = DeformableConv2d(plain)
    deformable.offset.bias.copy_(torch.tensor([float(dy), float(dx)]).repeat(9))
    shifted = plain(torch.roll(x, (-dy, -dx), dims=(2, 3)))
    inside = (slice(None), slice(None), slice(1, 6), slice(1, 8))  # away from the border that roll brings around
    torch.testing.assert_close(deformable(x)[inside], shifted[inside], rtol=1e-4, atol=1e-5)


def test_offsets_learn_from_the_first_step_on() -> None:
    deformable = DeformableConv2d(conv())
    deformable(torch.randn(1, 4, 8, 8)).pow(2).sum().backward()
    assert float(deformable.offset.weight.grad.abs().max()) > 0


@pytest.mark.parametrize("block", [Bottleneck(16, 4), BasicBlock(16, 16)])
def test_a_block_keeps_the_name_of_its_weight(block: Bottleneck | BasicBlock) -> None:
    weight = block.conv2.weight
    names = set(block.state_dict())
    changed = deform_block(block)
    assert changed.conv2.weight is weight
    assert set(changed.state_dict()) - names == {"conv2.offset.weight", "conv2.offset.bias"}


@pytest.mark.parametrize("options", [{"groups": 2}, {"padding": "same"}])
def test_what_it_cannot_replace_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="without groups"):
        DeformableConv2d(nn.Conv2d(4, 4, 3, **options))
