"""Mask probabilities to run-length codes, beside torchvision's pasting and pycocotools' encoding."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from r3cnn.benchmarks.memory_use import extra_bytes
from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.timing import take_turns
from r3cnn.evaluation.paste import paste_and_encode

OURS, PEER = "ours", "torchvision + pycocotools"
MASK_SIZE, THRESHOLD, MEGABYTE = 28, 0.5, 1e6
LARGEST_TIME, LARGEST_MEGABYTES = 0.25, 400.0
# Of a whole image, in [0, 1]: object sides as in COCO, from a few pixels to most of the image.
SMALLEST_SIDE, LARGEST_SIDE = 0.03, 0.8


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
    large = (int(large_image_size[0]), int(large_image_size[1]))
    few, many = (draw_masks(count, large, seed) for count in (1, masks))
    warm_up = partial(paste_and_encode, *few, large)
    used = extra_bytes(partial(paste_and_encode, *many, large), warm_up=warm_up) / MEGABYTE
    dense = masks * large[0] * large[1] / MEGABYTE
    size = (int(image_size[0]), int(image_size[1]))
    probabilities, boxes = draw_masks(masks, size, seed)
    calls = {
        OURS: lambda: float(len(paste_and_encode(probabilities, boxes, size).counts)),
        PEER: lambda: float(len(peer_codes(probabilities, boxes, size))),
    }
    measured = take_turns(calls, repetitions=repetitions, warmups=warmups, device=torch.device("cpu"))
    name = f"{masks} masks to RLE at {size[1]}x{size[0]}: {OURS} / {PEER}"
    megapixels = large[0] * large[1] / 1e6
    return [
        Row(name, measured[OURS].seconds, measured[PEER].seconds, LARGEST_TIME, True),
        Row(
            f"extra memory for {masks} masks at {megapixels:.0f} MP: {OURS} / dense uint8 masks alone",
            used,
            dense,
            LARGEST_MEGABYTES / dense,
            True,
            "MB",
        ),
    ]


def draw_masks(count: int, size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """(D, 28, 28) probabilities of blobs as a mask head predicts them, and (D, 4) boxes inside the image."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([size[1], size[0]])
    shares = torch.rand(count, 2, generator=generator) ** 2 * (LARGEST_SIDE - SMALLEST_SIDE) + SMALLEST_SIDE
    corners = torch.rand(count, 2, generator=generator) * (1 - shares) * extent
    centres = torch.linspace(-1, 1, MASK_SIZE)
    squeeze = torch.rand(count, 1, 1, generator=generator) + 0.5
    distance = centres[:, None] ** 2 * squeeze + centres[None, :] ** 2 / squeeze
    wobble = torch.randn(count, MASK_SIZE, MASK_SIZE, generator=generator)
    return ((0.8 - distance) * 8 + wobble).sigmoid(), torch.cat([corners, corners + shares * extent], dim=1)


def peer_codes(probabilities: Tensor, boxes: Tensor, size: tuple[int, int]) -> list[bytes]:
    """Codes as torchvision's own evaluation makes them: all masks pasted at once, then encoded one by one."""
    pasted = paste_masks_in_image(probabilities[:, None], boxes, size) > THRESHOLD
    dense = pasted.numpy().astype(np.uint8)
    return [coco_mask.encode(np.asfortranarray(mask[0]))["counts"] for mask in dense]
