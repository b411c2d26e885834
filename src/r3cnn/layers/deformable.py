"""Deformable convolution (arXiv 1703.06211), put into the blocks of a ResNet."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import deform_conv2d

from r3cnn.ops.deform_conv import gather_deform_conv2d


class DeformableConv2d(nn.Module):
    """A convolution that samples where a second convolution says (version 1: no modulation, one offset group).

    It is the plain convolution at first, as the offsets start at zero.

    Args:
        conv: The convolution without groups whose weights are taken over under the same name.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.groups != 1 or isinstance(conv.padding, str):
            raise ValueError(f"a convolution without groups and with padding in pixels is needed, got {conv}")
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding, self.dilation = _pair(conv.stride), _pair(conv.padding), _pair(conv.dilation)
        self.offset = copy.deepcopy(conv)  # the same geometry
        self.offset.out_channels = 2 * conv.kernel_size[0] * conv.kernel_size[1]  # (dy, dx) of each kernel position
        self.offset.weight = nn.Parameter(torch.zeros(self.offset.out_channels, *conv.weight.shape[1:]))
        self.offset.bias = nn.Parameter(torch.zeros(self.offset.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', H', W') from (B, C, H, W)."""
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What ``forward`` gives with other weights (C', C, kh, kw) and another bias (C',).

        It samples in float32 also under autocast, since offsets of a fraction of a pixel would suffer from less.
        """
        offset = self.offset(x)
        with torch.autocast(x.device.type, enabled=False):
            sampled = self._sample(x.float(), offset.float(), weight.float(), None if bias is None else bias.float())
        return sampled.to(offset.dtype)

    def _sample(self, x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        geometry = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        # Exported programs name the operator, as other runtimes have one of their own.
        if x.device.type == "cpu" and not torch.compiler.is_exporting():
            return gather_deform_conv2d(x, offset, weight, bias, **geometry)
        return deform_conv2d(x, offset, weight, bias, **geometry)


def deform_block(block: Bottleneck | BasicBlock) -> Bottleneck | BasicBlock:
    """The same block with a 3x3 convolution made deformable: a bottleneck's only one, a basic block's second one.

    The paper has bottlenecks alone.
    """
    block.conv2 = DeformableConv2d(block.conv2)
    return block


def _pair(sides: tuple[int, ...]) -> tuple[int, int]:
    return sides[0], sides[1]
