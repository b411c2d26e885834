"""``r3cnn bench masks``: mask probabilities to run-length codes, beside torchvision's pasting and pycocotools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from r3cnn.benchmarks.harness import MB, Row, compare, run_alone, take_turns
from r3cnn.benchmarks.workload import pair
from r3cnn.evaluation.paste import paste_and_encode
from r3cnn.structures import Size

OURS, BASELINE = "ours", "torchvision + pycocotools"
MASK_SIZE, THRESHOLD = 28, 0.5
LARGEST_TIME, LARGEST_MEGABYTES = 0.25, 400.0
SIDES = (0.03, 0.8)  # of a whole image: object sides as in COCO, from a few pixels to most of the image


def mask_rows(
    *,
    masks: int,
    image_size: Sequence[int],
    large_image_size: Sequence[int],
    repetitions: int,
    warmups: int,
    seed: int,
) -> list[Row]:
    """Time at one size of image, and extra memory at a large one (theirs is computed, not allocated).

    Args:
        masks: Masks of an image.
        image_size: (height, width) in pixels, for the times.
        large_image_size: (height, width) in pixels, for the memory.
        repetitions: Rounds that count.
        warmups: Rounds before them.
        seed: Of masks and boxes.
    """
    size, large = pair(image_size), pair(large_image_size)
    one, many = (partial(paste_and_encode, *draw_masks(count, large, seed), large) for count in (1, masks))
    used = run_alone(many, warm_up=one).extra_bytes / MB
    dense = masks * large[0] * large[1] / MB
    drawn = draw_masks(masks, size, seed)
    calls: dict[str, Callable[[], float]] = {
        OURS: lambda: len(paste_and_encode(*drawn, size).counts),
        BASELINE: lambda: len(torchvision_rles(*drawn, size)),
    }
    turns = take_turns(calls, repetitions=repetitions, warmups=warmups)
    memory = f"extra memory for {masks} masks at {large[0] * large[1] / 1e6:.0f} MP: {OURS} / dense uint8 masks alone"
    return [
        turns.row(f"{masks} masks to RLE at {size[1]}x{size[0]}: {OURS} / {BASELINE}", OURS, BASELINE, LARGEST_TIME),
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
