"""Resize and flip of an image and its objects, as the authors' pipeline does them (mmdetection 2.3 with OpenCV)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from r3cnn.data.annotations import Objects
from r3cnn.data.segmentation import Crop, decode
from r3cnn.structures import InstanceMasks, Size, Target, canvas_of

MIN_SIDE = 1.0
"""Boxes whose shorter side is below this after resizing, in pixels of the network input, are not trained on."""


def resized_size(size: Size, image_size: tuple[int, int]) -> Size:
    """Largest size with the same aspect ratio within bounds.

    Args:
        size: (height, width) in pixels.
        image_size: Upper bounds of the (shorter, longer) side in pixels.
    """
    short, long = image_size
    scale = min(long / max(size), short / min(size))
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Bilinear resize without antialiasing, which OpenCV's does not have either.

    torch's integer kernel rounds its weights otherwise than OpenCV's: on the recorded images 2.6% of the values (the
    float kernel, ten times slower: 2.4%) differ, by one grey level.

    Args:
        image: (3, h, w) uint8.
        size: (height, width) of the result in pixels.
    """
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]


def resize_boxes(boxes: npt.NDArray[np.float32], old: Size, new: Size) -> npt.NDArray[np.float32]:
    """(G, 4) boxes of an image of size ``old`` after its resize to ``new``, clipped to it, in pixels."""
    factors = np.array([new[1] / old[1], new[0] / old[0]] * 2, dtype=np.float32)
    limits = np.array([new[1], new[0]] * 2, dtype=np.float32)
    return np.clip(boxes * factors, 0, limits)


def flip_boxes(boxes: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    """(G, 4) boxes mirrored left to right in an image of ``width`` pixels: ``x -> width - x``."""
    flipped = boxes.copy()
    flipped[:, 0], flipped[:, 2] = width - boxes[:, 2], width - boxes[:, 0]
    return flipped


def transform_objects(objects: Objects, old: Size, new: Size, *, flip: bool) -> Target:
    """Ground truth in pixels of the resized, perhaps mirrored image.

    Args:
        objects: G objects in pixels of the image file.
        old: Size of the image file.
        new: Size of the resized image.
        flip: Whether the resized image is mirrored left to right.
    """
    boxes = resize_boxes(objects.boxes, old, new)
    if flip:
        boxes = flip_boxes(boxes, new[1])
    keep = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= MIN_SIDE
    boxes = boxes[keep]
    segments = [segment for segment, is_kept in zip(objects.segments, keep.tolist(), strict=True) if is_kept]
    return Target(
        boxes=torch.from_numpy(boxes),
        labels=torch.from_numpy(objects.labels[keep]),
        masks=_transform_masks(segments, boxes, old, new, flip=flip),
    )


def _transform_masks(
    segments: Sequence[bytes], boxes: npt.NDArray[np.float32], old: Size, new: Size, *, flip: bool
) -> InstanceMasks:
    """Nearest-neighbour resize, done only inside each object's window."""
    rows, columns = _sources(old[0], new[0]), _sources(old[1], new[1])
    if flip:
        columns = columns[::-1]
    crops, corners = [], []
    for segment, box in zip(segments, boxes.tolist(), strict=True):
        found = decode(segment, old)
        x1, y1, x2, y2 = _window(box, found, old, new, flip=flip)
        crop = torch.zeros(y2 - y1, x2 - x1, dtype=torch.uint8)
        if found is not None:
            inside = columns[x1:x2] - found.x
            is_inside = (inside >= 0) & (inside < len(found.columns))
            picked = found.columns[inside[is_inside]][:, rows[y1:y2]]
            crop.numpy()[:, is_inside] = picked.T
        crops.append(crop)
        corners.append((x1, y1))
    return InstanceMasks.from_windows(crops, corners, canvas_of(new))


def _sources(old: int, new: int) -> npt.NDArray[np.int64]:
    """Pixel of the old side that each pixel of the new side is picked from, as OpenCV's nearest neighbour does."""
    step = 1.0 / (new / old)
    return np.minimum(np.floor(np.arange(new) * step).astype(np.int64), old - 1)


def _window(box: Sequence[float], mask: Crop | None, old: Size, new: Size, *, flip: bool) -> tuple[int, int, int, int]:
    """``(x1, y1, x2, y2)`` in whole pixels of the new image that hold the box with 1 px around it, and the mask.

    Args:
        box: ``(x1, y1, x2, y2)`` in pixels of the new image.
        mask: The mask in pixels of the image file; None for an empty one.
        old: Size of the image file.
        new: Size of the new image.
        flip: Whether the new image is mirrored.
    """
    x1, y1, x2, y2 = math.floor(box[0]) - 1, math.floor(box[1]) - 1, math.ceil(box[2]) + 1, math.ceil(box[3]) + 1
    if mask is not None:
        left, right = _span(mask.x, mask.x + len(mask.columns), old[1], new[1])
        if flip:
            left, right = new[1] - right, new[1] - left
        top, bottom = _span(*mask.rows, old[0], new[0])
        x1, y1, x2, y2 = min(x1, left), min(y1, top), max(x2, right), max(y2, bottom)
    return max(x1, 0), max(y1, 0), min(x2, new[1]), min(y2, new[0])


def _span(first: int, stop: int, old: int, new: int) -> tuple[int, int]:
    """Pixels of the new side that hold all those picked from ``first`` to ``stop`` of the old one."""
    return math.floor(first * new / old), math.ceil(stop * new / old) + 1
