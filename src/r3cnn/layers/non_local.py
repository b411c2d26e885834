"""Non-local block with large kernels (arXiv 1711.07971; R3-CNN, arXiv 2104.01329, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from r3cnn.layers.init import init_normal
from r3cnn.ranges import check_range


class NonLocal(nn.Module):
    """Embedded-Gaussian attention over all positions of a map, added to it.

    It is the identity at first, as the last convolution starts at zero.

    Args:
        channels: C, of the input and the output.
        reduction: Attention works on C / reduction channels; must divide C.
        kernel_size: Side of all four convolutions, odd; 1 in the original block, 7 in R3-CNN's heads.
    """

    def __init__(self, channels: int, *, reduction: int, kernel_size: int) -> None:
        super().__init__()
        check_range("[1, inf)", channels=channels, reduction=reduction, kernel_size=kernel_size)
        if channels % reduction or not kernel_size % 2:
            got = f"{channels} channels, reduction {reduction} and kernel_size {kernel_size}"
            raise ValueError(f"reduction must divide the channels and kernel_size be odd, got {got}")
        inner, padding = channels // reduction, kernel_size // 2
        self.g = nn.Conv2d(channels, inner, kernel_size, padding=padding)
        self.theta = nn.Conv2d(channels, inner, kernel_size, padding=padding)
        self.phi = nn.Conv2d(channels, inner, kernel_size, padding=padding)
        self.out = nn.Conv2d(inner, channels, kernel_size, padding=padding)
        for conv in (self.g, self.theta, self.phi):
            init_normal(conv, std=0.01)
        init_normal(self.out, std=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) from (N, C, H, W)."""
        # Fused attention asks for (N, heads, H * W, D) with the channels side by side in memory.
        query, key, value = (
            conv(x).permute(0, 2, 3, 1).flatten(1, 2).contiguous()[:, None] for conv in (self.theta, self.phi, self.g)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)[:, 0]  # (N, H * W, D), scaled by 1 / sqrt(D)
        return x + self.out(mixed.transpose(1, 2).unflatten(2, x.shape[2:]))


def for_large_kernels(x: Tensor) -> Tensor:
    """(N, C, H, W) in the memory format in which kernels almost as large as the map are fastest.

    On a CPU, kernels of 7x7 on maps of 7x7 take 0.35 to 0.85 of the time if channels come first, since the padding
    around the map is left out; accelerators want channels last.
    """
    return x.contiguous() if x.device.type == "cpu" else x.contiguous(memory_format=torch.channels_last)
