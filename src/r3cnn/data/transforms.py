"""Resize, cut and flip of an image and its objects; resize and flip as in mmdetection 2.3 with OpenCV."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from r3cnn.data.annotations import Objects
from r3cnn.data.segmentation import Crop, decode
from r3cnn.ranges import check_range
from r3cnn.structures import MOST_PIXELS, InstanceMasks, Size, Target, canvas_of

MIN_SIDE = 1.0
"""Boxes whose shorter side is below this after resizing, in pixels of the network input, are not trained on."""


class Window(NamedTuple):
    """A part of an image in whole pixels.

    Attributes:
        left: First column.
        top: First row.
        width: Columns.
        height: Rows.
    """

    left: int
    top: int
    width: int
    height: int

    def cuts(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """(G,) whether a part of each of (G, 4) boxes lies outside."""
        first, last = np.array([self.left, self.top]), np.array([self.left + self.width, self.top + self.height])
        return np.asarray((boxes[:, :2] < first).any(axis=1) | (boxes[:, 2:] > last).any(axis=1))

    def clip(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(G, 4) boxes in pixels of the window, clipped to it."""
        corner = np.array([self.left, self.top] * 2, dtype=np.float32)
        return np.clip(boxes - corner, 0, np.array([self.width, self.height] * 2, dtype=np.float32))


def check_input(image_size: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuses bounds of `resized_size` and means and deviations of RGB channels that no image can be brought to.

    Raises:
        ValueError: With their name.
    """
    is_pair = len(image_size) == 2 and 0 < image_size[0] <= image_size[1]
    if not is_pair or image_size[0] * image_size[1] > MOST_PIXELS:
        needed = f"[short, long] is needed, bounds of the sides in pixels, with a product of at most {MOST_PIXELS}"
        raise ValueError(f"image_size is {list(image_size)}: {needed}")
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3:
            raise ValueError(f"{name} is {list(values)}: one number for each of R, G and B is needed")
    check_range("(-inf, inf)", mean=mean)
    check_range("(0, inf)", std=std)


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


def transform_objects(objects: Objects, old: Size, new: Size, *, flip: bool, window: Window | None = None) -> Target:
    """Ground truth in pixels of the resized, perhaps cut, perhaps mirrored image.

    An object that the cut goes through keeps what is left of its mask, and the box of that; without a pixel left it
    is gone. Other boxes are only moved.

    Args:
        objects: G objects in pixels of the image file.
        old: Size of the image file.
        new: Size of the resized image.
        flip: Whether the resized image is mirrored left to right.
        window: Part of the resized image that is kept; None for all of it.
    """
    window = window or Window(0, 0, new[1], new[0])
    boxes, crowds = resize_boxes(objects.boxes, old, new), resize_boxes(objects.crowds, old, new)
    is_cut = window.cuts(boxes)
    boxes, crowds = window.clip(boxes), window.clip(crowds)
    crowds = crowds[(crowds[:, 2] > crowds[:, 0]) & (crowds[:, 3] > crowds[:, 1])]
    if flip:
        boxes, crowds = flip_boxes(boxes, window.width), flip_boxes(crowds, window.width)
    keep = _is_trainable(boxes)
    crops: list[Tensor] = []
    corners: list[tuple[int, int]] = []
    pixels = _Pixels(old, new, window, flip)
    for number in np.flatnonzero(keep).tolist():
        crop, corner = pixels.of(objects.segments[number], boxes[number].tolist())
        if is_cut[number]:
            boxes[number] = _visible_box(crop, corner, boxes[number])
            keep[number] = bool(_is_trainable(boxes[number : number + 1])[0])
        if keep[number]:
            crops.append(crop)
            corners.append(corner)
    return Target(
        boxes=torch.from_numpy(boxes[keep]),
        labels=torch.from_numpy(objects.labels[keep]),
        masks=InstanceMasks.from_windows(crops, corners, canvas_of((window.height, window.width))),
        crowds=torch.from_numpy(crowds),
    )


def _is_trainable(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    return np.asarray(np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) >= MIN_SIDE)


def _visible_box(crop: Tensor, corner: tuple[int, int], box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The part of ``box`` that holds a pixel of the mask; of zero area where there is none."""
    rows, columns = crop.any(dim=1).nonzero()[:, 0], crop.any(dim=0).nonzero()[:, 0]
    if not len(rows):
        return np.zeros(4, dtype=np.float32)
    x, y = corner
    least = np.array([x + int(columns[0]), y + int(rows[0])], dtype=np.float32)
    largest = np.array([x + int(columns[-1]) + 1, y + int(rows[-1]) + 1], dtype=np.float32)
    return np.concatenate([np.maximum(box[:2], least), np.minimum(box[2:], largest)])


class _Pixels:
    """Nearest-neighbour resize, cut and flip of masks, done only inside each object's window.

    Args:
        old: Size of the image file.
        new: Size of the resized image.
        window: Part of it that is kept.
        flip: Whether that part is mirrored.
    """

    def __init__(self, old: Size, new: Size, window: Window, flip: bool) -> None:
        self._old, self._new, self._window, self._flip = old, new, window, flip
        self._rows = _sources(old[0], new[0])[window.top : window.top + window.height]
        columns = _sources(old[1], new[1])[window.left : window.left + window.width]
        self._columns = columns[::-1] if flip else columns

    def of(self, segment: bytes, box: Sequence[float]) -> tuple[Tensor, tuple[int, int]]:
        """Mask around ``box``, which is in pixels of the result, and the upper left corner of what is returned."""
        found = decode(segment, self._old)
        x1, y1, x2, y2 = self._place(box, found)
        if found is None:
            return torch.zeros(y2 - y1, x2 - x1, dtype=torch.uint8), (x1, y1)
        top, bottom = found.rows
        small = np.zeros((bottom - top + 2, len(found.columns) + 2), dtype=np.uint8)  # all that lies outside is border
        small[1:-1, 1:-1] = found.columns[:, top:bottom].T
        columns = np.clip(self._columns[x1:x2] - found.x + 1, 0, small.shape[1] - 1)
        rows = np.clip(self._rows[y1:y2] - top + 1, 0, small.shape[0] - 1)
        return torch.from_numpy(small.take(columns, axis=1).take(rows, axis=0)), (x1, y1)

    def _place(self, box: Sequence[float], mask: Crop | None) -> tuple[int, int, int, int]:
        """``(x1, y1, x2, y2)`` in whole pixels of the result that hold the box with 1 px around it, and the mask."""
        x1, y1, x2, y2 = math.floor(box[0]) - 1, math.floor(box[1]) - 1, math.ceil(box[2]) + 1, math.ceil(box[3]) + 1
        width, height = self._window.width, self._window.height
        if mask is not None:
            left, right = _span(mask.x, mask.x + len(mask.columns), self._old[1], self._new[1])
            left, right = left - self._window.left, right - self._window.left
            if self._flip:
                left, right = width - right, width - left
            top, bottom = _span(*mask.rows, self._old[0], self._new[0])
            x1, x2 = min(x1, left), max(x2, right)
            y1, y2 = min(y1, top - self._window.top), max(y2, bottom - self._window.top)
        return max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)


def _sources(old: int, new: int) -> npt.NDArray[np.int64]:
    """Pixel of the old side that each pixel of the new side is picked from, as OpenCV's nearest neighbour does."""
    step = 1.0 / (new / old)
    return np.minimum(np.floor(np.arange(new) * step).astype(np.int64), old - 1)


def _span(first: int, stop: int, old: int, new: int) -> tuple[int, int]:
    """Pixels of the new side that hold all those picked from ``first`` to ``stop`` of the old one."""
    return math.floor(first * new / old), math.ceil(stop * new / old) + 1
