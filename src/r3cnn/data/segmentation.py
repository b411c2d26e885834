"""One form for every segmentation: COCO's compressed run lengths, at the size of the image file.

Polygons and both kinds of run lengths are brought to it once, at set-up, with pycocotools' own rasteriser. It is exact
(these are the masks that COCO evaluation scores), a few hundred bytes per object, and quicker to decode than a polygon.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from r3cnn.structures import Size


def encode(segmentation: object, size: Size) -> bytes:
    """Compressed run lengths of a COCO ``segmentation`` entry, column by column as COCO counts.

    Args:
        segmentation: List of polygons ``[x1, y1, x2, y2, …]`` in pixels, or a dict of run lengths with ``size`` and
            ``counts`` (list: uncompressed; string: compressed).
        size: Size of the image file in pixels.

    Raises:
        ValueError: With the reason, for anything that is no mask of an image of this size.
    """
    if isinstance(segmentation, dict):
        return _encode_runs(segmentation, size)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("has no segmentation: a list of polygons or run lengths are needed")
    for polygon in segmentation:
        _check_polygon(polygon)
    height, width = size
    runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return bytes(runs["counts"])


def decode(counts: bytes, size: Size) -> npt.NDArray[np.uint8]:
    """(height, width) uint8 mask in {0, 1}, in column order in memory."""
    mask: npt.NDArray[np.uint8] = coco_mask.decode({"size": list(size), "counts": counts})
    return mask


def extent(counts: bytes, size: Size) -> tuple[int, int, int, int]:
    """Smallest ``(x, y, width, height)`` that holds the mask, in pixels; all zero for an empty mask."""
    x, y, width, height = coco_mask.toBbox({"size": list(size), "counts": counts}).tolist()
    return int(x), int(y), int(width), int(height)


def _check_polygon(polygon: object) -> None:
    if not isinstance(polygon, list):
        raise ValueError("has a segmentation that is no list of polygons: each one is a list [x1, y1, x2, y2, …]")
    if len(polygon) % 2:
        raise ValueError(f"has a polygon of {len(polygon)} numbers: x and y come in pairs")
    if len(polygon) < 6:
        raise ValueError(f"has a polygon of {len(polygon) // 2} points: at least 3 are needed")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in polygon):
        raise ValueError("has a polygon with an entry that is no finite number")


def _encode_runs(runs: dict[str, object], size: Size) -> bytes:
    given, counts = runs.get("size"), runs.get("counts")
    if not isinstance(given, Sequence) or list(given) != list(size):
        raise ValueError(f"has run lengths (RLE) of size {given}, its image is (height, width) = {list(size)}")
    if isinstance(counts, list):
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError("has run lengths (RLE) that are not all integers >= 0")
        _check_total(sum(counts), size)
        return bytes(coco_mask.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"])
    if isinstance(counts, str):
        data = counts.encode("ascii", errors="replace")
        _check_total(_total(data), size)
        return data
    raise ValueError(f"has run lengths (RLE) whose counts are a {type(counts).__name__}: a list or a string is needed")


def _check_total(total: int, size: Size) -> None:
    if total != size[0] * size[1]:
        raise ValueError(f"has run lengths (RLE) that sum to {total} pixels, its image has {size[0] * size[1]}")


def _total(counts: bytes) -> int:
    """Number of pixels that compressed run lengths stand for; pycocotools does not check it.

    The code (``rleToString`` in COCO's ``maskApi.c``): base-32 digits from character 48 on, bit 5 says that more digits
    follow, the last digit carries the sign in bit 4, and from the fourth run on the difference to two runs before is
    stored.
    """
    digits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("has compressed run lengths (RLE) with characters that are none of its code")
    is_last = (digits & 32) == 0
    starts = np.flatnonzero(np.concatenate(([True], is_last[:-1])))
    lengths = np.diff(np.append(starts, len(digits)))
    if lengths.max() > 6:
        raise ValueError("has compressed run lengths (RLE) with a run of more than 6 digits")
    position = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * position), starts)
    is_negative = (digits[is_last] & 16) != 0
    runs = np.where(is_negative, runs - (np.int64(1) << (5 * lengths)), runs)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0:
        raise ValueError("has compressed run lengths (RLE) with a negative run")
    return int(runs.sum())
