"""Feature pyramid network (arXiv 1612.03144), torchvision's, initialised as in the released configurations."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from r3cnn.layers.init import init_xavier
from r3cnn.ranges import check_range


class FPN(nn.Module):
    """Turns C2 … C5 into P2 … P6 of equal width; P6 is every second pixel of P5.

    Args:
        in_channels: Channels of each input level.
        out_channels: Channels of every output level.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        check_range("[1, inf)", in_channels=in_channels, out_channels=out_channels)
        self.pyramid = FeaturePyramidNetwork(list(in_channels), out_channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = out_channels
        init_xavier(self)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Levels (B, C, H / stride, W / stride) with strides 4, 8, 16, 32, 64."""
        levels = self.pyramid({str(level): feature for level, feature in enumerate(features)})
        return list(levels.values())
