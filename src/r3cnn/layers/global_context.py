"""Global context block of GC-Net (arXiv 1904.11492), put into the blocks of a ResNet."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from r3cnn.layers.init import init_normal, zero_bias
from r3cnn.layers.residual import Residual
from r3cnn.ranges import check_range


class GlobalContext(nn.Module):
    """Adds one vector per image, pooled from all positions by attention, to every position.

    It is the identity at first, as the last convolution starts at zero.

    Args:
        channels: C, of the input and the output.
        ratio: Width of the layer between, as a part of C; in (0, 1].
    """

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__()
        check_range("(0, 1]", ratio=ratio)
        inner = int(channels * ratio)
        if not 1 <= inner <= channels:
            raise ValueError(f"ratio must leave 1 to {channels} of {channels} channels, got {ratio}")
        self.mask = nn.Conv2d(channels, 1, 1)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.norm = nn.LayerNorm([inner, 1, 1])
        self.expand = nn.Conv2d(inner, channels, 1)
        nn.init.kaiming_normal_(self.mask.weight, mode="fan_in", nonlinearity="relu")
        zero_bias(self.mask)
        init_normal(self.expand, std=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) from (B, C, H, W)."""
        cells = x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, C), no copy of channels-last memory
        # Convolutions are slow where there is one output channel, and a product with a matrix of one column (F.linear)
        # has twice the rounding of one with a vector in the weight's gradient, which is small beside what it sums.
        logits = cells @ self.mask.weight.flatten() + cast(Tensor, self.mask.bias)
        weights = logits.softmax(dim=1)  # (B, H * W)
        context = (weights[:, None] @ cells).transpose(1, 2)[..., None]  # (B, C, 1, 1)
        return x + self.expand(self.norm(self.reduce(context)).relu())


def add_context(block: Bottleneck | BasicBlock, ratio: float) -> Residual:
    """The same block with a global context block behind its last norm, before the shortcut is added.

    The paper has bottlenecks alone; basic blocks are for small networks.

    Args:
        block: The block; its layers are taken over and keep their names.
        ratio: See `GlobalContext`.
    """
    last = block.conv2 if isinstance(block, BasicBlock) else block.conv3
    return Residual(block, GlobalContext(last.out_channels, ratio))
