"""Attention by query content and relative position, term (2) of generalized attention (arXiv 1904.05873)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from r3cnn.layers.init import zero_bias
from r3cnn.ranges import check_range


class RelativePositionAttention(nn.Module):
    """What a position attends to depends on its content and on how far away, in x and in y, the others are.

    It is the identity at first, as ``gamma`` starts at zero. In the released code (mmcv's ``GeneralizedAttention`` of
    type ``0100``) offsets in y meet the content of the transposed position, (x, y) instead of (y, x), so it needs
    square maps; every number published with it was made that way.

    Args:
        channels: C, of the input and the output; a multiple of 4.
        heads: Attention heads, each C // heads wide.
        key_stride: Keys and values are every so many positions of the grid.
        wave_length: Longest wave of the position embedding, in grid cells divided by 2 pi.
        transposed_y: Whether offsets in y meet the content of the transposed position, as in the released code.
    """

    def __init__(self, channels: int, heads: int, key_stride: int, wave_length: float, transposed_y: bool) -> None:
        super().__init__()
        check_range("[1, inf)", heads=heads, key_stride=key_stride)
        check_range("(0, inf)", wave_length=wave_length)
        if channels % 4 or not 1 <= heads <= channels:
            raise ValueError(f"channels must be a multiple of 4 and at least heads, got {channels} and {heads}")
        width = channels // heads
        self.channels, self.heads, self.key_stride = channels, heads, key_stride
        self.wave_length, self.transposed_y = wave_length, transposed_y
        self.query = nn.Conv2d(channels, heads * width, 1, bias=False)
        self.value = nn.Conv2d(channels, heads * width, 1, bias=False)
        self.position_x = nn.Linear(channels // 2, heads * width, bias=False)
        self.position_y = nn.Linear(channels // 2, heads * width, bias=False)
        self.out = nn.Conv2d(heads * width, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))
        for layer in (self.query, self.value, self.position_x, self.position_y, self.out):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        zero_bias(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) from (N, C, H, W); H = W with ``transposed_y``."""
        height, width = x.shape[2:]
        query = self.query(x).unflatten(1, (self.heads, -1))  # (N, heads, D, H, W)
        keys = x[:, :, :: self.key_stride, :: self.key_stride]
        value = self.value(keys).unflatten(1, (self.heads, -1)).flatten(3)  # (N, heads, D, keys)
        by_x = self._positions(self.position_x, width)  # (W, keys in x, heads, D)
        by_y = self._positions(self.position_y, height)  # (H, keys in y, heads, D)
        energy_x = torch.einsum("nadyx,xkad->nayxk", query, by_x)
        query_of_y = query.transpose(3, 4) if self.transposed_y else query
        energy_y = torch.einsum("nadyx,ykad->nayxk", query_of_y, by_y)
        energy = energy_y[..., :, None] + energy_x[..., None, :]  # (N, heads, H, W, keys in y, keys in x)
        weights = energy.flatten(4).softmax(dim=-1)
        mixed = torch.einsum("nayxk,nadk->nadyx", weights, value).flatten(1, 2)
        return x + self.gamma * self.out(mixed)

    def _positions(self, project: nn.Linear, length: int) -> Tensor:
        """(queries, keys, heads, D) embeddings of how far each key lies from each query along one axis."""
        weight = project.weight
        positions = torch.arange(length, device=weight.device, dtype=torch.float32)
        distance = positions[:, None] - positions[None, :: self.key_stride]
        waves = torch.arange(self.channels // 4, device=weight.device, dtype=torch.float32)
        angles = distance[..., None] / self.wave_length ** (4.0 / self.channels * waves)
        embedded = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (queries, keys, C / 2)
        return project(embedded.to(weight.dtype)).unflatten(-1, (self.heads, -1)) / 2**0.5
