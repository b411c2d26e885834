"""Anchors of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from r3cnn.ranges import check_range


class AnchorGenerator:
    """One scale and several aspect ratios per level, centred on the upper left corners of the cells.

    Args:
        scale: Side of the square anchor in strides, in [0.0001, 10000].
        ratios: Height / width of each anchor, likewise.
        strides: Stride of each level in pixels.
    """

    def __init__(self, scale: float, ratios: Sequence[float], strides: Sequence[int]) -> None:
        check_range("[0.0001, 10000]", scale=scale, ratios=ratios)
        check_range("[1, inf)", strides=strides)
        self.scale, self.ratios, self.strides = scale, tuple(ratios), tuple(strides)

    @property
    def num_anchors(self) -> int:
        """Anchors per cell."""
        return len(self.ratios)

    def __call__(self, shapes: Sequence[tuple[int, int]], device: torch.device) -> list[Tensor]:
        """(H * W * A, 4) anchors of each level, in the order row, column, ratio, for maps of ``shapes`` (H, W)."""
        return [self._level(shape, stride, device) for shape, stride in zip(shapes, self.strides, strict=True)]

    def _level(self, shape: tuple[int, int], stride: int, device: torch.device) -> Tensor:
        y = torch.arange(shape[0], device=device, dtype=torch.float32)[:, None, None] * stride
        x = torch.arange(shape[1], device=device, dtype=torch.float32)[None, :, None] * stride
        root = torch.tensor(self.ratios, dtype=torch.float32).sqrt()
        half = stride * self.scale * 0.5
        half_h = (half * root).to(device, non_blocking=True)  # (A,)
        half_w = (half / root).to(device, non_blocking=True)
        corners = torch.broadcast_tensors(x - half_w, y - half_h, x + half_w, y + half_h)  # (H, W, A) each
        return torch.stack(corners, dim=-1).reshape(-1, 4)

    def valid(self, shapes: Sequence[tuple[int, int]], canvas: tuple[int, int], device: torch.device) -> list[Tensor]:
        """(H * W * A,) bool per level: whether the cell lies inside an image's own ``canvas`` (height, width)."""
        flags = []
        for (height, width), stride in zip(shapes, self.strides, strict=True):
            rows = torch.arange(height, device=device) < -(-canvas[0] // stride)
            columns = torch.arange(width, device=device) < -(-canvas[1] // stride)
            cells = (rows[:, None] & columns[None, :])[..., None].expand(-1, -1, self.num_anchors)
            flags.append(cells.reshape(-1))
        return flags
