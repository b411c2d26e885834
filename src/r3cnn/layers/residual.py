"""The residual blocks of a ResNet (arXiv 1512.03385), with fixed norms folded into their convolutions."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from r3cnn.layers.deformable import DeformableConv2d


class Residual(nn.Module):
    """A block of torchvision's ResNet that computes each convolution and its norm at once where it can.

    The parts of the block keep their names, so ImageNet weights fit.

    Args:
        block: The block; its layers are taken over.
        context: What the output goes through before the shortcut is added.
    """

    def __init__(self, block: BasicBlock | Bottleneck, context: nn.Module | None = None) -> None:
        super().__init__()
        self.downsample: nn.Sequential | None
        for name, layer in block.named_children():
            self.add_module(name, layer)
        if block.downsample is None:
            self.downsample = None
        self.depth = sum(name.startswith("conv") for name, _ in block.named_children())
        self.context = nn.Identity() if context is None else context

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', H', W') from (B, C, H, W)."""
        inner = x
        for number in range(1, self.depth + 1):
            inner = conv_norm(self.get_submodule(f"conv{number}"), self.get_submodule(f"bn{number}"), inner)
            inner = inner.relu_() if number < self.depth else self.context(inner)
        inner += x if self.downsample is None else conv_norm(self.downsample[0], self.downsample[1], x)
        return inner.relu_()


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(conv(x))``; a single convolution where the norm's statistics are fixed.

    Scaling the kernel instead of the output saves a pass over the output forwards and backwards, and a copy of it that
    the gradient would need; the gradients of kernel, scale and shift are the same up to rounding.

    Args:
        conv: A convolution without bias, plain or deformable.
        norm: Batch norm, or any other norm.
        x: (B, C, H, W).
    """
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or norm.training or not norm.affine:
        return cast(Tensor, norm(conv(x)))
    if type(conv) not in (nn.Conv2d, DeformableConv2d) or conv.bias is not None or isinstance(conv.padding, str):
        return cast(Tensor, norm(conv(x)))
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    kernel, shift = conv.weight * scale[:, None, None, None], norm.bias - mean * scale
    if isinstance(conv, DeformableConv2d):
        return conv.convolve(x, kernel, shift)
    return F.conv2d(x, kernel, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
