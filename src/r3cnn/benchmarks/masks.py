"""``r3cnn bench masks``: mask probabilities to run-length codes, beside torchvision's pasting and pycocotools."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from r3cnn.benchmarks.harness import MB, Row, compare, run_alone, take_turns
from r3cnn.evaluation.paste import paste_and_encode
from r3cnn.structures import Size

OURS, BASELINE = "ours", "torchvision + pycocotools"
MASK_SIZE, THRESHOLD = 28, 0.5
LARGEST_TIME, LARGEST_MEGABYTES = 0.25, 400.0
SIDES = (0.03, 0.8)  # of a whole image: object sides as in COCO, from a few pixels to most of the image


def mask_rows(
    *, masks: int, image_size: Size, large_image_size: Size, repetitions: int, warmups: int, seed: int
) -> list[Row]:
    """Time at one size of image, and extra memory at a large one (theirs is computed, not allocated)."""
    one, many = (
        partial(paste_and_encode, *draw_masks(count, large_image_size, seed), large_image_size) for count in (1, masks)
    )
    used = run_alone(many, warm_up=one)[1] / MB
    dense = masks * large_image_size[0] * large_image_size[1] / MB
    drawn = draw_masks(masks, image_size, seed)
    turns = take_turns(
        {
            OURS: lambda: len(paste_and_encode(*drawn, image_size).counts),
            BASELINE: lambda: len(torchvision_rles(*drawn, image_size)),
        },
        repetitions=repetitions,
        warmups=warmups,
    )
    title = f"{masks} masks to RLE at {image_size[1]}x{image_size[0]}: {OURS} / {BASELINE}"
    memory = f"extra memory for {masks} masks at {dense / masks:.0f} MP: {OURS} / dense uint8 masks alone"
    return [
        turns.row(title, OURS, BASELINE, LARGEST_TIME),
        compare(memory, used, dense, LARGEST_MEGABYTES / dense, "MB"),
    ]


def draw_masks(count: int, size: Size, seed: int) -> tuple[Tensor, Tensor]:
    """(D, 28, 28) probabilities of blobs as a mask head predicts them, and (D, 4) boxes inside the image."""
    generator = torch.Generator().manual_seed(seed)
    extent, (smallest, largest) = torch.tensor([size[1], size[0]]), SIDES
    shares = torch.rand(count, 2, generator=generator) ** 2 * (largest - smallest) + smallest
    corners = torch.rand(count, 2, generator=generator) * (1 - shares) * extent
    centres = torch.linspace(-1, 1, MASK_SIZE)
    squeeze = torch.rand(count, 1, 1, generator=generator) + 0.5
    distance = centres[:, None] ** 2 * squeeze + centres[None, :] ** 2 / squeeze
    wobble = torch.randn(count, MASK_SIZE, MASK_SIZE, generator=generator)
    return ((0.8 - distance) * 8 + wobble).sigmoid(), torch.cat([corners, corners + shares * extent], dim=1)


def torchvision_rles(probabilities: Tensor, boxes: Tensor, size: Size) -> list[bytes]:
    """Codes as torchvision's own evaluation makes them: all masks pasted at once, then encoded one by one."""
    pasted = paste_masks_in_image(probabilities[:, None], boxes, size) > THRESHOLD
    dense = pasted.numpy().astype(np.uint8)
    return [coco_mask.encode(np.asfortranarray(mask[0]))["counts"] for mask in dense]
