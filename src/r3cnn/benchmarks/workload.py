"""Images and ground truth to time networks on: drawn from a seed, so that nothing has to be read or fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r3cnn.ops.images import normalize_images
from r3cnn.structures import InstanceMasks, Size, Target, canvas_of

SMALLEST_SIDE, LARGEST_SIDE = 0.1, 0.5  # of an object, as parts of the image's short side


@dataclass(frozen=True)
class Workload:
    """One batch.

    Attributes:
        images: (B, 3, H, W) uint8 RGB on the canvas, on the device.
        size: Size of every image inside the canvas in pixels.
        targets: Ground truth of each image.
        mean: Of each channel, in [0, 255].
        std: Of each channel, in [0, 255].
    """

    images: Tensor
    size: Size
    targets: tuple[Target, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def sizes(self) -> list[Size]:
        """Size of each image."""
        return [self.size] * len(self.images)

    def normalized(self) -> Tensor:
        """(B, 3, H, W) float32 network input."""
        height, width = self.size
        images = list(self.images[:, :, :height, :width])
        return normalize_images(images, canvas_of(self.size), self.mean, self.std)


def draw_workload(
    *,
    batch_size: int,
    size: Size,
    objects: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    device: torch.device,
) -> Workload:
    """Noise with ellipses on it.

    Args:
        batch_size: Images.
        size: Size of every image in pixels.
        objects: Ellipses per image.
        num_classes: K; every ellipse gets a random label in [0, K).
        mean: Of each channel, in [0, 255].
        std: Of each channel, in [0, 255].
        seed: Of everything drawn.
        device: Where the batch lies.

    Raises:
        ValueError: For a batch or an image without anything in it.
    """
    if min(batch_size, objects, *size) < 1:
        raise ValueError(f"batch_size, objects and image_size must be >= 1, got {batch_size}, {objects}, {list(size)}")
    generator = torch.Generator().manual_seed(seed)
    canvas = canvas_of(size)
    images = torch.zeros(batch_size, 3, *canvas, dtype=torch.uint8)
    images[:, :, : size[0], : size[1]] = torch.randint(256, (batch_size, 3, *size), generator=generator)
    targets = []
    for image in images:
        crops, corners, labels = [], [], []
        for _ in range(objects):
            crop, (x, y) = _ellipse(size, generator)
            area = image[:, y : y + crop.shape[0], x : x + crop.shape[1]]
            area[:, crop.bool()] = torch.randint(256, (3, 1), generator=generator).to(torch.uint8)
            crops.append(crop)
            corners.append((x, y))
            labels.append(int(torch.randint(num_classes, (), generator=generator)))
        targets.append(_target(crops, corners, labels, canvas).to(device))
    return Workload(images.to(device), size, tuple(targets), tuple(mean), tuple(std))


def _ellipse(size: Size, generator: torch.Generator) -> tuple[Tensor, tuple[int, int]]:
    """(h, w) uint8 mask of an ellipse that fills its window, and the window's upper left corner ``(x, y)``."""
    shape_share, place = torch.rand(2, 2, generator=generator).tolist()
    sides = [
        max(2, round(min(size) * (SMALLEST_SIDE + share * (LARGEST_SIDE - SMALLEST_SIDE)))) for share in shape_share
    ]
    height, width = (min(side, limit) for side, limit in zip(sides, size, strict=True))
    y, x = int(place[0] * (size[0] - height)), int(place[1] * (size[1] - width))
    rows = (torch.arange(height) + 0.5) / height * 2 - 1
    columns = (torch.arange(width) + 0.5) / width * 2 - 1
    return (rows[:, None] ** 2 + columns[None, :] ** 2 <= 1).to(torch.uint8), (x, y)


def _target(crops: Sequence[Tensor], corners: Sequence[tuple[int, int]], labels: Sequence[int], canvas: Size) -> Target:
    boxes = [(x, y, x + crop.shape[1], y + crop.shape[0]) for crop, (x, y) in zip(crops, corners, strict=True)]
    masks = InstanceMasks.from_windows(crops, corners, canvas)
    return Target(torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels), masks)
