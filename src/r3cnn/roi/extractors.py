"""From a feature pyramid and RoIs to features of fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from r3cnn.structures import RoiRows


class RoIExtractor(Protocol):
    """Anything that pools RoIs from pyramid levels."""

    def __call__(self, features: Sequence[Tensor], rois: RoiRows) -> Tensor:
        """(N, C, S, S) features of N RoIs from levels (B, C, H, W)."""
        ...


class SingleLevelRoIExtractor(nn.Module):
    """RoIAlign (arXiv 1703.06870) from the pyramid level that fits the RoI's size (arXiv 1612.03144, Eq. 1).

    With static shapes every level pools all RoIs, but those of other levels with a box of zero size, for which adaptive
    sampling takes no sample; so no level has to know on the host how many RoIs it has. Otherwise each pools its own.

    Args:
        output_size: S, side of the pooled grid.
        strides: Stride of each level used, in pixels.
        finest_scale: RoIs with a side below twice this go to the finest level, in pixels.
    """

    def __init__(self, output_size: int, strides: Sequence[int], finest_scale: int) -> None:
        super().__init__()
        self.output_size, self.strides, self.finest_scale = output_size, tuple(strides), finest_scale

    def forward(self, features: Sequence[Tensor], rois: RoiRows) -> Tensor:
        """(N, C, S, S); RoIs without area give zeros."""
        level_of = self.levels(rois.boxes)
        table = torch.cat([rois.image[:, None].to(rois.boxes.dtype), rois.boxes], dim=1)  # (N, 5)
        if rois.is_static:
            own = [torch.where((level_of == level)[:, None], table, 0.0) for level in range(len(self.strides))]
            return torch.stack([self._pool(features, level, rows) for level, rows in enumerate(own)]).sum(dim=0)
        rows_of = [(level_of == level).nonzero()[:, 0] for level in range(len(self.strides))]
        pooled = torch.cat([self._pool(features, level, table[rows]) for level, rows in enumerate(rows_of)])
        return pooled[torch.cat(rows_of).argsort()]

    def _pool(self, features: Sequence[Tensor], level: int, table: Tensor) -> Tensor:
        scale = 1 / self.strides[level]
        return roi_align(features[level], table, self.output_size, scale, -1, aligned=True)

    def levels(self, boxes: Tensor) -> Tensor:
        """(N,) int64 index of the level of each box (N, 4)."""
        sides = boxes[:, 2:] - boxes[:, :2]
        scale = (sides[:, 0] * sides[:, 1]).sqrt()
        level = torch.floor(torch.log2(scale / self.finest_scale + 1e-6))
        return level.clamp(0, len(self.strides) - 1).long()
