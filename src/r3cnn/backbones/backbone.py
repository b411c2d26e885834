"""What the detector asks of a feature extractor."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


class Backbone(nn.Module, ABC):
    """Gives four feature maps at the strides that pyramid, anchors and RoI extractors count on.

    Attributes:
        out_channels: Channels of C2, C3, C4 and C5.
    """

    out_channels: tuple[int, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """C2, C3, C4, C5 of images (B, 3, H, W), at strides 4, 8, 16, 32; H and W are multiples of 32."""

    @abstractmethod
    def fetch_weights(self) -> None:
        """Loads pretrained weights where there are any to start from; building the module never does."""
