"""From a feature pyramid and RoIs to features of fixed size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from r3cnn.layers.attention import RelativePositionAttention
from r3cnn.layers.init import init_kaiming
from r3cnn.layers.non_local import for_large_kernels
from r3cnn.ops.roi_align import gather_rois
from r3cnn.ranges import check_range
from r3cnn.structures import RoiRows


class RoIExtractor(Protocol):
    """Anything that pools RoIs from pyramid levels."""

    def __call__(self, features: Sequence[Tensor], rois: RoiRows) -> Tensor:
        """(N, C, S, S) features of N RoIs from levels (B, C, H, W)."""
        ...


class SingleLevelRoIExtractor(nn.Module):
    """RoIAlign (arXiv 1703.06870) from the pyramid level that fits the RoI's size (arXiv 1612.03144, Eq. 1).

    With static shapes every level pools all RoIs, but those of other levels with a box of zero size, for which adaptive
    sampling takes no sample; so no level has to know on the host how many RoIs it has. Otherwise one gather serves all
    levels and images.

    Args:
        output_size: S, side of the pooled grid.
        strides: Stride of each level used, in pixels.
        finest_scale: RoIs with a side below twice this go to the finest level, in pixels.
    """

    def __init__(self, output_size: int, strides: Sequence[int], finest_scale: int) -> None:
        super().__init__()
        check_range("[1, 64]", output_size=output_size)
        check_range("[1, inf)", strides=strides, finest_scale=finest_scale)
        self.output_size, self.strides, self.finest_scale = output_size, tuple(strides), finest_scale

    def forward(self, features: Sequence[Tensor], rois: RoiRows) -> Tensor:
        """(N, C, S, S); RoIs without area give zeros."""
        level_of = self.levels(rois.boxes)
        if rois.is_static:
            table = _table(rois)
            own = [torch.where((level_of == level)[:, None], table, 0.0) for level in range(len(self.strides))]
            return torch.stack([self._pool(features, level, rows) for level, rows in enumerate(own)]).sum(dim=0)
        return gather_rois(
            features[: len(self.strides)],
            rois.image,
            rois.boxes,
            level_of,
            strides=self.strides,
            side=self.output_size,
            sampling_ratio=-1,
        )

    def _pool(self, features: Sequence[Tensor], level: int, table: Tensor) -> Tensor:
        scale = 1 / self.strides[level]
        return roi_align(features[level], table, self.output_size, scale, -1, aligned=True)

    def levels(self, boxes: Tensor) -> Tensor:
        """(N,) int64 index of the level of each box (N, 4); 0 for one that is not finite."""
        sides = boxes[:, 2:] - boxes[:, :2]
        scale = (sides[:, 0] * sides[:, 1]).sqrt()
        level = torch.floor(torch.log2(scale / self.finest_scale + 1e-6)).nan_to_num()  # of a diverged network
        return level.clamp(0, len(self.strides) - 1).long()


class GRoIEExtractor(nn.Module):
    """Every RoI from every pyramid level, summed and attended (GRoIE, arXiv 2004.13665).

    Args:
        in_channels: C, channels of the levels and of the result.
        output_size: S, side of the pooled grid.
        strides: Stride of each level used, in pixels.
        sampling_ratio: Samples per grid cell and axis.
        kernel_size: Side of the convolution that all levels share, odd.
        attention: Called with C; what the sum goes through.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        output_size: int,
        strides: Sequence[int],
        sampling_ratio: int,
        kernel_size: int,
        attention: Callable[[int], RelativePositionAttention],
    ) -> None:
        super().__init__()
        check_range("[1, inf)", in_channels=in_channels, strides=strides, kernel_size=kernel_size)
        check_range("[1, 64]", output_size=output_size)
        check_range("[1, 16]", sampling_ratio=sampling_ratio)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}: an odd number is needed")
        self.output_size, self.strides, self.sampling_ratio = output_size, tuple(strides), sampling_ratio
        self.conv = nn.Conv2d(in_channels, in_channels, kernel_size, padding=kernel_size // 2)
        self.attention = attention(in_channels)
        init_kaiming(self.conv)

    def forward(self, features: Sequence[Tensor], rois: RoiRows) -> Tensor:
        """(N, C, S, S)."""
        # The coarsest level is the RPN's alone.
        pooled = [self._pool(level, stride, rois) for level, stride in zip(features, self.strides, strict=False)]
        summed = F.relu(self.conv(for_large_kernels(pooled[0])), inplace=True)
        for level in pooled[1:]:
            summed = summed + F.relu(self.conv(for_large_kernels(level)), inplace=True)
        return self.attention(summed)

    def _pool(self, level: Tensor, stride: int, rois: RoiRows) -> Tensor:
        size, ratio = self.output_size, self.sampling_ratio
        if rois.is_static:
            return roi_align(level, _table(rois), size, 1 / stride, ratio, aligned=True)
        only = torch.zeros_like(rois.image)
        return gather_rois([level], rois.image, rois.boxes, only, strides=[stride], side=size, sampling_ratio=ratio)


def _table(rois: RoiRows) -> Tensor:
    """(N, 5) image index and box of each RoI, as RoIAlign takes them."""
    return torch.cat([rois.image[:, None].to(rois.boxes.dtype), rois.boxes], dim=1)
