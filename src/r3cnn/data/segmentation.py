"""One form for every segmentation: COCO's compressed run lengths, at the size of the image file.

Polygons and both kinds of run lengths are brought to it once, at set-up, with pycocotools' own rasteriser. It is exact
(these are the masks that COCO evaluation scores) and takes a few hundred bytes per object. Only the columns that an
object touches are decoded: with 50 nuclei per image 5 times faster than pycocotools, which fills the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Crop:
    """The part of a mask that is not zero everywhere.

    Attributes:
        columns: (w, height) uint8 in {0, 1}; the columns ``x`` to ``x + w`` of the image, each from top to bottom.
        x: First column, in pixels.
        rows: First row that holds a pixel, and the first one below that does not.
    """

    columns: npt.NDArray[np.uint8]
    x: int
    rows: tuple[int, int]


def decode(counts: bytes, size: Size) -> Crop | None:
    """The columns of a mask that hold a pixel; None for an empty mask."""
    height = size[0]
    lengths = _runs(counts)
    ends = np.cumsum(lengths)
    is_pixel = lengths[1::2] > 0
    first, last = ends[:-1:2][: len(is_pixel)][is_pixel], ends[1::2][is_pixel] - 1
    if not len(first):
        return None
    x, stop = int(first[0]) // height, int(last[-1]) // height + 1
    lengths[0] -= x * height
    values = np.zeros(len(lengths), dtype=np.uint8)
    values[1::2] = 1
    columns = np.repeat(values, lengths)[: (stop - x) * height]
    columns = np.concatenate([columns, np.zeros((stop - x) * height - len(columns), dtype=np.uint8)])
    crosses = bool((first // height != last // height).any())
    rows = (0, height) if crosses else (int((first % height).min()), int((last % height).max()) + 1)
    return Crop(columns.reshape(stop - x, height), x, rows)


def _check_polygon(polygon: object) -> None:
    if not isinstance(polygon, list):
        raise ValueError("has a segmentation that is no list of polygons: each one is a list [x1, y1, x2, y2, …]")
    if len(polygon) % 2:
        raise ValueError(f"has a polygon of {len(polygon)} numbers: x and y come in pairs")
    if len(polygon) < 6:
        raise ValueError(f"has a polygon of {len(polygon) // 2} points: at least 3 are needed")
    try:
        is_finite = bool(np.isfinite(np.array(polygon, dtype=np.float64)).all())
    except (TypeError, ValueError):
        is_finite = False
    if not is_finite:
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
        _check_total(int(_runs(data).sum()), size)
        return data
    raise ValueError(f"has run lengths (RLE) whose counts are a {type(counts).__name__}: a list or a string is needed")


def _check_total(total: int, size: Size) -> None:
    if total != size[0] * size[1]:
        raise ValueError(f"has run lengths (RLE) that sum to {total} pixels, its image has {size[0] * size[1]}")


def _runs(counts: bytes) -> npt.NDArray[np.int64]:
    """Lengths of the runs of zeros, ones, zeros, … that compressed run lengths stand for.

    The code (``rleToString`` in COCO's ``maskApi.c``): base-32 digits from character 48 on, bit 5 says that more digits
    follow, the last digit carries the sign in bit 4, and from the fourth run on the difference to two runs before is
    stored.

    Raises:
        ValueError: For characters that are none of its code; pycocotools would decode them to anything.
    """
    digits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("has compressed run lengths (RLE) with characters that are none of its code")
    stops = np.flatnonzero((digits & 32) == 0) + 1
    starts = np.concatenate(([0], stops[:-1]))
    num_digits = stops - starts
    if num_digits.max() > 6:
        raise ValueError("has compressed run lengths (RLE) with a run of more than 6 digits")
    shifts = 5 * (np.arange(len(digits)) - np.repeat(starts, num_digits))
    runs = np.add.reduceat((digits & 31) << shifts, starts)
    runs -= ((digits[stops - 1] & 16) >> 4) << (5 * num_digits)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    if runs.min() < 0:
        raise ValueError("has compressed run lengths (RLE) with a negative run")
    return runs
