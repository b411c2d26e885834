"""Mask probabilities on a grid over each box -> run-length codes of the whole image, without dense masks.

A mask is sampled only inside its box, column by column as COCO's codes run, and in chunks of a fixed number of bytes.
Only the places where a mask switches on or off leave the device. The codes equal, byte for byte, those of pasting the
full image and ``pycocotools.mask.encode``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from r3cnn.evaluation.rle import EncodedMasks, encode_switches
from r3cnn.structures import Size

# Peak per sampled pixel: grid 8, its two broadcast factors 8, sample 4, bits, comparison and edges about 4.
BYTES_PER_PIXEL = 24
# Sampling this many pixels too many costs about as much as one more launch of every kernel involved.
PADDING_SLACK = 16_384
PADDING_FACTOR = 1.15
OUTSIDE = 3.0  # a grid coordinate beyond [-1, 1] by more than any mask's last cell


@dataclass(frozen=True)
class Strip:
    """Columns ``x`` to ``right`` and rows ``y`` to ``bottom`` (exclusive) of the image, to be filled from one mask."""

    mask: int
    x: int
    y: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.x

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.y


def to_original(boxes: Tensor, size: Size, original_size: Size) -> Tensor:
    """Boxes in pixels of the resized image -> pixels of the image file.

    Each axis has its own factor (new_w / old_w and new_h / old_h), since both sides of a resized image are rounded.

    Args:
        boxes: (D, 4) float32, pixels of the network input.
        size: Size of the resized image in pixels.
        original_size: Size of the image file in pixels.
    """
    height, width = size[0] / original_size[0], size[1] / original_size[1]
    return boxes / boxes.new_tensor([width, height, width, height])


def paste_and_encode(
    masks: Tensor, boxes: Tensor, image_size: Size, *, threshold: float = 0.5, max_bytes: int = 64 * 2**20
) -> EncodedMasks:
    """Pastes masks into their boxes and encodes them.

    The value of a pixel is the bilinear sample at its centre, with zeros outside the grid (``grid_sample`` with
    ``align_corners=False``, as in mmdetection's ``FCNMaskHead``). A box without area gives an empty mask.

    Args:
        masks: (D, M, M) float32 probabilities in [0, 1], row 0 at the upper edge of the box.
        boxes: (D, 4) ``(x1, y1, x2, y2)`` in pixels of the image; may cross its borders.
        image_size: Size of the image in pixels.
        threshold: A pixel belongs to the mask from this probability on; at least 0.5, or pixels outside the box, where
            the bilinear sample fades out, would have to be looked at.
        max_bytes: Extra memory on the device for one chunk of masks.

    Raises:
        ValueError: For a threshold below 0.5 or unequal numbers of masks and boxes.
    """
    if not 0.5 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0.5, 1], got {threshold}")
    if len(masks) != len(boxes):
        raise ValueError(f"got {len(masks)} masks and {len(boxes)} boxes: one box per mask is needed")
    max_pixels = max(1, max_bytes // BYTES_PER_PIXEL)
    strips = cut_strips(windows_of(boxes, image_size), max_pixels)
    found = [
        _switches(masks, boxes, chunk, image_size[0], image_size[0] * image_size[1] + 1, threshold)
        for chunk in chunk_strips(strips, max_pixels)
    ]
    switches = torch.cat(found).sort().values if found else torch.zeros(0, dtype=torch.int64)
    return encode_switches(switches.cpu().numpy(), len(masks), image_size)


def windows_of(boxes: Tensor, image_size: Size) -> list[tuple[int, int, int, int]]:
    """Integer windows ``(x1, y1, x2, y2)``, clipped to the image, that hold every pixel of a box; one host read."""
    if not len(boxes):
        return []
    height, width = image_size
    low = boxes[:, :2].floor()
    high = boxes[:, 2:].ceil()
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1, keepdim=True)
    edges = torch.cat([low, torch.where(has_area, high, low)], dim=1)  # (D, 4)
    limit = boxes.new_tensor([width, height, width, height])
    rows = torch.minimum(edges.clamp(min=0), limit).to(torch.int64).tolist()
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def cut_strips(windows: Sequence[tuple[int, int, int, int]], max_pixels: int) -> list[Strip]:
    """Windows as strips of whole columns with at most ``max_pixels`` each (but at least one column)."""
    strips = []
    for mask, (x1, y1, x2, y2) in enumerate(windows):
        if y2 <= y1:
            continue
        columns = max(1, max_pixels // (y2 - y1))
        strips += [Strip(mask, x, y1, min(x + columns, x2), y2) for x in range(x1, x2, columns)]
    return strips


def chunk_strips(strips: Sequence[Strip], max_pixels: int) -> list[list[Strip]]:
    """Groups strips of similar size: few launches, little padding, and never more than ``max_pixels`` per chunk."""
    chunks: list[list[Strip]] = []
    width = height = used = 0
    for strip in sorted(strips, key=lambda one: (one.width * one.height, one.width)):
        width, height = max(width, strip.width), max(height, strip.height)
        used += strip.width * strip.height
        padded = (len(chunks[-1]) + 1) * width * height if chunks else 0
        if chunks and padded <= min(max_pixels, PADDING_FACTOR * used + PADDING_SLACK):
            chunks[-1].append(strip)
        else:
            chunks.append([strip])
            width, height, used = strip.width, strip.height, strip.width * strip.height
    return chunks


def _switches(
    masks: Tensor, boxes: Tensor, chunk: Sequence[Strip], image_height: int, stride: int, threshold: float
) -> Tensor:
    """(N,) int64 ``mask * stride + position`` of each switch, position counting pixels down the image's columns."""
    device = masks.device
    table = torch.tensor([(s.mask, s.x, s.y, s.right, s.bottom) for s in chunk], device=device)
    which, x, y, right, bottom = table.unsqueeze(2).unbind(dim=1)  # five times (S, 1)
    columns = x + torch.arange(max(s.width for s in chunk), device=device)  # (S, w)
    rows = y + torch.arange(max(s.height for s in chunk), device=device)  # (S, h)
    x1, y1, x2, y2 = boxes[which[:, 0]].float().unsqueeze(2).unbind(dim=1)  # four times (S, 1)
    # Padding samples far outside the grid, where everything is zero: no mask of it has to be applied afterwards.
    across = torch.where(columns < right, (columns + 0.5 - x1) / (x2 - x1) * 2 - 1, OUTSIDE)
    down = torch.where(rows < bottom, (rows + 0.5 - y1) / (y2 - y1) * 2 - 1, OUTSIDE)
    shape = (len(chunk), across.shape[1], down.shape[1])
    grid = across.new_empty(*shape, 2)  # (S, w, h, 2)
    grid[..., 0], grid[..., 1] = across[:, :, None], down[:, None, :]
    sampled = functional.grid_sample(masks[which[:, 0], None].float(), grid, mode="bilinear", align_corners=False)
    del grid
    bits = torch.zeros(shape[0], shape[1], shape[2] + 2, dtype=torch.bool, device=device)
    torch.ge(sampled[:, 0], threshold, out=bits[:, :, 1:-1])  # column by column; each starts and ends switched off
    strip, column, row = (bits[:, :, 1:] != bits[:, :, :-1]).nonzero().unbind(dim=1)
    return which[strip, 0] * stride + (x[strip, 0] + column) * image_height + y[strip, 0] + row
