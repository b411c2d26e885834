"""Images, ground truth and proposals to time networks on, drawn from a seed: nothing has to be read or fetched."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from r3cnn.ops.images import normalize_images
from r3cnn.structures import InstanceMasks, Size, Target, canvas_of

Precision = Literal["fp32", "bf16"]
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of R, G, B on [0, 255], as for ImageNet's weights
OBJECT_SIDES = (0.1, 0.5)  # as parts of the image's short side
PROPOSAL_SIDES = (0.05, 0.6)  # of proposals away from objects, as parts of the image's sides
NEAR_SHARE = 0.5  # of the proposals that lie on a ground truth, more than any sampler takes as positives
JITTER = 0.03  # of an object's side: an IoU of 0.89 or more, so positive in every loop of the paper


@dataclass(frozen=True)
class Case:
    """What a network runs on.

    Attributes:
        precision: ``fp32``, or ``bf16`` for autocast to bfloat16.
        batch_size: Images.
        image_size: Size of each in pixels.
        objects: Ground truths per image.
    """

    precision: Precision
    batch_size: int
    image_size: Size
    objects: int

    @property
    def name(self) -> str:
        """For the rows."""
        height, width = self.image_size
        return f"{self.precision}, {self.batch_size} x {width}x{height}"


@dataclass(frozen=True)
class Workload:
    """One batch.

    Attributes:
        case: What it was drawn for.
        images: (B, 3, H, W) uint8 RGB on the canvas, on the device.
        targets: Ground truth of each image.
    """

    case: Case
    images: Tensor
    targets: tuple[Target, ...]

    @property
    def size(self) -> Size:
        """Size of every image inside the canvas in pixels."""
        return self.case.image_size

    @property
    def sizes(self) -> list[Size]:
        """Size of each image."""
        return [self.size] * len(self.images)

    def normalized(self) -> Tensor:
        """(B, 3, H, W) float32 network input."""
        height, width = self.size
        return normalize_images(list(self.images[:, :, :height, :width]), canvas_of(self.size), MEAN, STD)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """What a network runs under."""
        is_bf16 = self.case.precision == "bf16"
        return torch.autocast(self.images.device.type, torch.bfloat16) if is_bf16 else contextlib.nullcontext()


def draw_workload(case: Case, *, num_classes: int, seed: int, device: torch.device) -> Workload:
    """Noise with ellipses of random labels on it."""
    generator = torch.Generator().manual_seed(seed)
    size, canvas = case.image_size, canvas_of(case.image_size)
    images = torch.zeros(case.batch_size, 3, *canvas, dtype=torch.uint8)
    images[:, :, : size[0], : size[1]] = torch.randint(256, (case.batch_size, 3, *size), generator=generator)
    targets = []
    for image in images:
        crops, corners, labels = [], [], []
        for _ in range(case.objects):
            crop, (x, y) = _ellipse(size, generator)
            area = image[:, y : y + crop.shape[0], x : x + crop.shape[1]]
            area[:, crop.bool()] = torch.randint(256, (3, 1), generator=generator).to(torch.uint8)
            crops.append(crop)
            corners.append((x, y))
            labels.append(int(torch.randint(num_classes, (), generator=generator)))
        boxes = [(x, y, x + crop.shape[1], y + crop.shape[0]) for crop, (x, y) in zip(crops, corners, strict=True)]
        masks = InstanceMasks.from_windows(crops, corners, canvas)
        target = Target(torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels), masks)
        targets.append(target.to(device))
    return Workload(case, images.to(device), tuple(targets))


def _ellipse(size: Size, generator: torch.Generator) -> tuple[Tensor, tuple[int, int]]:
    """(h, w) uint8 mask of an ellipse that fills its window, and the window's upper left corner ``(x, y)``."""
    shares, place = torch.rand(2, 2, generator=generator).tolist()
    smallest, largest = OBJECT_SIDES
    sides = [max(2, round(min(size) * (smallest + share * (largest - smallest)))) for share in shares]
    height, width = (min(side, limit) for side, limit in zip(sides, size, strict=True))
    y, x = int(place[0] * (size[0] - height)), int(place[1] * (size[1] - width))
    rows = (torch.arange(height) + 0.5) / height * 2 - 1
    columns = (torch.arange(width) + 0.5) / width * 2 - 1
    return (rows[:, None] ** 2 + columns[None, :] ** 2 <= 1).to(torch.uint8), (x, y)


def draw_proposals(workload: Workload, count: int, seed: int) -> Tensor:
    """(B, count, 4) float32 boxes inside the images: some on the objects, the others anywhere.

    Networks with random weights propose boxes of which hardly one is positive, and how many survive NMS is a matter of
    chance; with these, RoIs and positives are equally many on both sides of a comparison.

    Args:
        workload: Images and ground truth.
        count: Proposals per image.
        seed: Of everything drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = workload.size
    image = torch.tensor([width, height], dtype=torch.float32)
    smallest, largest = PROPOSAL_SIDES
    near = round(count * NEAR_SHARE)
    boxes = []
    for target in workload.targets:
        own = target.boxes.cpu()[torch.arange(near) % len(target)]
        sides = (own[:, 2:] - own[:, :2]).repeat(1, 2)
        jittered = own + JITTER * sides * (torch.rand(near, 1, generator=generator) * 2 - 1)
        shares = smallest + (largest - smallest) * torch.rand(count - near, 2, generator=generator)
        corners = torch.rand(count - near, 2, generator=generator) * (1 - shares) * image
        boxes.append(torch.cat([jittered, torch.cat([corners, corners + shares * image], dim=1)]))
    return torch.stack(boxes).clamp(min=0).minimum(image.repeat(2)).to(workload.images.device)
