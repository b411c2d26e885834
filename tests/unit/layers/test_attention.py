"""Attention by content and relative position against its formula, one position at a time."""

from __future__ import annotations

import math

import pytest
import torch

from r3cnn.layers.attention import RelativePositionAttention


def test_the_attention_is_the_identity_at_first() -> None:
    x = torch.randn(2, 8, 7, 7)
    assert torch.equal(RelativePositionAttention(8, 2, 2, 1000.0, transposed_y=True)(x), x)


def embedding(distance: float, channels: int) -> torch.Tensor:
    angles = [distance / 1000 ** (4 * k / channels) for k in range(channels // 4)]
    return torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


@pytest.mark.parametrize(("transposed_y", "size"), [(False, (4, 5)), (True, (5, 5))])
@torch.no_grad()
def test_energies_are_content_times_relative_position_in_x_plus_in_y(transposed_y: bool, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    channels, heads, width = 8, 2, 4
    height, length = size
    block = RelativePositionAttention(channels, heads, 2, 1000.0, transposed_y)
    block.gamma.fill_(0.7)
    for layer in (block.query, block.position_x, block.position_y):
        layer.weight.mul_(3)
    x = torch.randn(1, channels, height, length)
    query, value = block.query(x)[0], block.value(x)[0]
    keys = [(y, z) for y in range(0, height, 2) for z in range(0, length, 2)]
    mixed = torch.zeros(heads * width, height, length)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for y in range(height):
            for z in range(length):
                of_y = query[part, z, y] if transposed_y else query[part, y, z]
                energies = []
                for key_y, key_x in keys:
                    by_x = block.position_x(embedding(z - key_x, channels))[part]
                    by_y = block.position_y(embedding(y - key_y, channels))[part]
                    energies.append((query[part, y, z] @ by_x + of_y @ by_y) / 2**0.5)
                weights = torch.stack(energies).softmax(0)
                mixed[part, y, z] = sum(w * value[part, k[0], k[1]] for w, k in zip(weights, keys, strict=True))
    expected = x + 0.7 * block.out(mixed[None])
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_divide_the_channels_leave_some_out() -> None:
    assert RelativePositionAttention(256, 6, 2, 1000.0, transposed_y=True).query.weight.shape == (252, 256, 1, 1)


@pytest.mark.parametrize(("channels", "heads"), [(6, 2), (8, 0), (8, 9)])
def test_sizes_that_cannot_work_are_refused(channels: int, heads: int) -> None:
    with pytest.raises(ValueError, match=r"channels must be a multiple of 4|heads must be in"):
        RelativePositionAttention(channels, heads, 1, 1000.0, transposed_y=False)
