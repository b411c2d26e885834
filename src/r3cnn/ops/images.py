"""Pixels to network input, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normalize_images(
    images: Sequence[Tensor], canvas: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Subtracts the mean, divides by the standard deviation and pads with zeros to a common canvas.

    Padding comes after normalisation, so the padded area is 0 and not ``-mean / std``.

    Args:
        images: One (3, h, w) RGB tensor per image, uint8 or float, values in [0, 255].
        canvas: (height, width) that holds every image.
        mean: Mean of each channel, in [0, 255].
        std: Standard deviation of each channel, in [0, 255].

    Returns:
        (B, 3, H, W) float32 on the device of the images.
    """
    normalized = torch.zeros(len(images), 3, *canvas, device=images[0].device)
    for row, image in zip(normalized, images, strict=True):
        height, width = image.shape[-2:]
        for channel in range(3):  # with Python numbers: no constant has to be sent to the device
            inside = row[channel, :height, :width]
            inside.copy_(image[channel]).sub_(mean[channel]).div_(std[channel])
    return normalized
