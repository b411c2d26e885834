"""Masks, boxes and labels on an image, at any scale, with pillow."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from r3cnn.reporting.fonts import pillow_font, runs_of

Color = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]

MASK_OPACITY = 0.45
GAP, LEGEND_HEIGHT = 16, 34  # between the panels of a strip, and below them
WHITE = ((255, 255),) * 3  # least and greatest of each channel
# From bad to good. Red and blue at the ends stay apart for colour-blind readers; the number stands at the box as well.
IOU_COLORS = (
    (0.5, (220, 40, 40)),
    (0.65, (255, 140, 30)),
    (0.8, (255, 221, 60)),
    (0.9, (90, 220, 130)),
    (1.0, (40, 180, 255)),
)


@dataclass(frozen=True)
class Mark:
    """One object to draw, in pixels of the image.

    Attributes:
        box: ``(x1, y1, x2, y2)``.
        color: Of the box, the mask and the label's ground.
        text: The label; nothing if empty.
        mask: (h, w) bool, the mask inside a window of the image, or None.
        corner: Upper left corner ``(x, y)`` of that window.
        is_outline: Draws the box thin and dashed: ground truth beneath predictions.
    """

    box: Rectangle
    color: Color
    text: str = ""
    mask: NDArray[np.bool_] | None = None
    corner: tuple[int, int] = (0, 0)
    is_outline: bool = False


def instance_color(number: int) -> Color:
    """Colours that stay apart for neighbours in a list: hue by the golden ratio, brightness in turn."""
    red, green, blue = colorsys.hsv_to_rgb(
        (0.58 + number * 0.618034) % 1, (0.85, 0.6)[number % 2], (1.0, 0.92)[number % 2]
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def iou_color(iou: float) -> Color:
    """Red at an IoU of 0.5 and below, over orange, yellow and green to blue at 1."""
    levels = [level for level, _ in IOU_COLORS]
    red, green, blue = (
        round(float(np.interp(iou, levels, [color[channel] for _, color in IOU_COLORS]))) for channel in range(3)
    )
    return red, green, blue


def panels_of_strip(strip: Image.Image, count: int) -> list[Image.Image]:
    """The titled panels that `draw_loop_strip` has put side by side, each alone.

    Raises:
        ValueError: If it is no strip of so many panels.
    """
    step, rest = divmod(strip.width - GAP, count)
    bottom = strip.height - LEGEND_HEIGHT - GAP
    gaps = [strip.crop((at * step, 0, at * step + GAP, max(bottom, 1))) for at in range(count + 1)]
    if rest or step <= GAP or bottom <= 0 or any(gap.getextrema() != WHITE for gap in gaps):
        raise ValueError(f"a picture of {strip.width} x {strip.height} pixels is no strip of {count} loops")
    return [strip.crop((GAP + at * step, 0, (at + 1) * step, bottom)) for at in range(count)]


def text_color(ground: Color) -> Color:
    """Black or white, whichever reads better on ``ground`` (luminance of ITU-R BT.601)."""
    luminance = 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2]
    return (0, 0, 0) if luminance > 140 else (255, 255, 255)


class Label:
    """A line of text, part by part in a font that has its characters.

    Args:
        text: What it says.
        size: Height of the letters in pixels.

    Attributes:
        box: What it covers, ``(left, top, right, bottom)``, from the left end of its base line.
    """

    def __init__(self, text: str, size: int) -> None:
        self._parts = [(part, pillow_font(file, size)) for part, file in runs_of(text)]
        ends = np.cumsum([0.0, *(font.getlength(part) for part, font in self._parts)])
        self._starts = ends.tolist()
        boxes = [font.getbbox(part, anchor="ls") for part, font in self._parts]
        self.box: Rectangle = (
            min(start + box[0] for start, box in zip(self._starts, boxes, strict=False)),
            min(box[1] for box in boxes),
            max(start + box[2] for start, box in zip(self._starts, boxes, strict=False)),
            max(box[3] for box in boxes),
        )

    def draw(self, draw: ImageDraw.ImageDraw, at: tuple[float, float], color: Color) -> None:
        """Writes it with its base line beginning at a point of the picture."""
        for start, (part, font) in zip(self._starts, self._parts, strict=False):
            draw.text((at[0] + start, at[1]), part, fill=color, font=font, anchor="ls")


def draw_marks(image: Image.Image, marks: Sequence[Mark], *, scale: float = 1.0) -> Image.Image:
    """Draws on an enlarged or reduced copy of an image; masks of large objects lie beneath those of small ones.

    Args:
        image: RGB.
        marks: Objects in pixels of ``image``, most important first; its label gets the best place.
        scale: Factor of the picture's size.
    """
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    canvas = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    line = max(1, round(max(width, height) / 300))
    pixels = np.array(canvas)
    for mark in sorted(marks, key=lambda one: -_area(one.box)):
        _blend_mask(pixels, mark, scale, line)
    canvas = Image.fromarray(pixels)
    draw = ImageDraw.Draw(canvas)
    for mark in reversed(marks):
        _draw_box(draw, mark, scale, line)
    _draw_labels(draw, marks, scale, canvas.size)
    return canvas


def _area(box: Rectangle) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _blend_mask(pixels: NDArray[np.uint8], mark: Mark, scale: float, line: int) -> None:
    """Tints the mask and draws its contour; changes ``pixels``."""
    if mark.mask is None or not mark.mask.any():
        return
    rows, columns = mark.mask.shape
    left, top = round(mark.corner[0] * scale), round(mark.corner[1] * scale)
    right, bottom = round((mark.corner[0] + columns) * scale), round((mark.corner[1] + rows) * scale)
    region = pixels[top:bottom, left:right]
    if not region.size:
        return
    grey = Image.fromarray(mark.mask.astype(np.uint8) * 255)
    enlarged = np.asarray(grey.resize((right - left, bottom - top), Image.Resampling.BILINEAR)) >= 128
    mask = enlarged[: region.shape[0], : region.shape[1]]  # a window may reach into the padding of the canvas
    color = np.array(mark.color, dtype=np.float32)
    region[mask] = (region[mask] * (1 - MASK_OPACITY) + color * MASK_OPACITY).astype(np.uint8)
    region[mask & ~_eroded(mask, line)] = mark.color


def _eroded(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Shrinks a mask by ``steps`` pixels in all four directions."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _draw_box(draw: ImageDraw.ImageDraw, mark: Mark, scale: float, line: int) -> None:
    x1, y1, x2, y2 = (side * scale for side in mark.box)
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
    if not mark.is_outline:
        draw.rectangle((x1, y1, x2, y2), outline=mark.color, width=line)
        return
    line = max(1, line // 2)
    dash = 4.0 * line + 2
    for start, stop, level, is_across in (
        (x1, x2, y1, True),
        (x1, x2, y2, True),
        (y1, y2, x1, False),
        (y1, y2, x2, False),
    ):
        for begin in np.arange(start, stop, 2 * dash):
            end = min(begin + dash, stop)
            ends = (begin, level, end, level) if is_across else (level, begin, level, end)
            draw.line(ends, fill=mark.color, width=line)


def _draw_labels(draw: ImageDraw.ImageDraw, marks: Iterable[Mark], scale: float, size: tuple[int, int]) -> None:
    """Puts each label at the first free corner of its box; leaves it out where all are taken."""
    taken: list[Rectangle] = []
    for mark in marks:
        if not mark.text:
            continue
        label = Label(mark.text, round(max(size) / 52))
        left, top, right, bottom = label.box
        width, height = right - left + 6, bottom - top + 6
        for place in _places(mark.box, scale, width, height, size):
            if not any(_overlap(place, other) for other in taken):
                taken.append(place)
                draw.rectangle(place, fill=mark.color)
                label.draw(draw, (place[0] + 3 - left, place[1] + 3 - top), text_color(mark.color))
                break


def _places(box: Rectangle, scale: float, width: float, height: float, size: tuple[int, int]) -> Iterable[Rectangle]:
    """Places for a label, best first: above, inside, below, at the right edge; all inside the picture."""
    x1, y1, x2, y2 = (side * scale for side in box)
    for x, y in ((x1, y1 - height), (x1, y1), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2 - height), (x2, y1)):
        x, y = min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))
        yield x, y, x + width, y + height


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
