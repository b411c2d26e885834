"""Pixels to network input, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normalize_images(
    images: Tensor, sizes: Sequence[tuple[int, int]], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Subtracts the mean, divides by the standard deviation and sets everything outside each image to zero.

    Padding comes after normalisation, so the padded area is 0 and not ``-mean / std``.

    Args:
        images: (B, 3, H, W) uint8 or float, RGB, values in [0, 255].
        sizes: (height, width) of each image inside the canvas.
        mean: Mean of each channel, in [0, 255].
        std: Standard deviation of each channel, in [0, 255].

    Returns:
        (B, 3, H, W) float32.
    """
    height, width = images.shape[-2:]
    shift = torch.tensor(mean, dtype=torch.float32).to(images.device, non_blocking=True)[:, None, None]
    scale = torch.tensor(std, dtype=torch.float32).to(images.device, non_blocking=True)[:, None, None]
    normalized = (images.float() - shift) / scale
    if all(size == (height, width) for size in sizes):
        return normalized
    extent = torch.tensor(sizes).to(images.device, non_blocking=True)
    rows = torch.arange(height, device=images.device) < extent[:, :1]  # (B, H)
    columns = torch.arange(width, device=images.device) < extent[:, 1:]  # (B, W)
    return normalized * (rows[:, None, :, None] & columns[:, None, None, :])
