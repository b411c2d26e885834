"""Deformable convolution (arXiv 1703.06211, Eq. 2) as a weighted gather and one matrix product.

torchvision's operator does the same value by value; on a CPU that takes up to 4 times as long, and its gradient up to
10 times (experiments/LOG.md).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from r3cnn.ops.gather import weighted_gather


def gather_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Equals ``torchvision.ops.deform_conv2d`` with one group of offsets and no mask.

    Args:
        x: (B, C, H, W) float32, fastest in channels-last memory.
        offset: (B, 2 * kh * kw, H', W') float32 ``(dy, dx)`` of each kernel position, in cells.
        weight: (C', C, kh, kw) float32.
        bias: (C',) float32 or none.
        stride: In y and x.
        padding: In y and x.
        dilation: In y and x.

    Returns:
        (B, C', H', W') float32 in channels-last memory.
    """
    (batch, channels, *sides), (out_channels, _, *kernel) = x.shape, weight.shape
    shifts = offset.unflatten(1, (-1, 2)).permute(2, 0, 3, 4, 1)  # (2, B, H', W', kh * kw)
    image = torch.arange(batch, device=x.device, dtype=torch.int32) * (sides[0] * sides[1])
    index = image[:, None, None, None, None, None]
    weights: list[Tensor] = []
    for axis in range(2):
        steps = torch.arange(kernel[axis], device=x.device) * dilation[axis]
        at_kernel = (steps[:, None] if axis == 0 else steps[None, :]).expand(*kernel).flatten()
        start = torch.arange(offset.shape[2 + axis], device=x.device) * stride[axis] - padding[axis]
        start = start[:, None, None] if axis == 0 else start[None, :, None]
        position = (start + at_kernel).to(x.dtype) + shifts[axis]  # (B, H', W', kh * kw)
        low = position.detach().floor()
        share = position - low
        cells = torch.stack([low, low + 1], dim=-1)
        inside = (cells >= 0) & (cells < sides[axis])  # beyond the border everything is zero
        weights.append(torch.stack([1 - share, share], dim=-1) * inside)
        cells = torch.where(inside, cells, 0).int()  # a position that is nan makes its weight nan
        index = index + (cells[..., :, None] * sides[1] if axis == 0 else cells[..., None, :])
    taps = weights[0][..., :, None] * weights[1][..., None, :]  # (B, H', W', kh * kw, 2, 2)
    bags = torch.arange(0, taps.numel(), 4, device=x.device, dtype=torch.int32)
    table = x.permute(0, 2, 3, 1).reshape(-1, channels)
    columns = weighted_gather(table, index.flatten(), taps.flatten(), bags)
    matrix = weight.permute(0, 2, 3, 1).reshape(out_channels, -1)  # (C', kh * kw * C)
    out = F.linear(columns.view(-1, matrix.shape[1]), matrix, bias)
    return out.view(batch, *offset.shape[2:], out_channels).permute(0, 3, 1, 2)
