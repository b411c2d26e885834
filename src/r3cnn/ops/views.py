"""Other views of the same images, larger, smaller or mirrored, and how boxes travel between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from r3cnn.ops.boxes import image_limits
from r3cnn.ranges import check_range
from r3cnn.structures import Size, canvas_of


@dataclass(frozen=True)
class View:
    """How an image is looked at.

    Attributes:
        scale: Factor of both sides of the image that the data set hands out.
        flip: Whether it is mirrored left to right.
    """

    scale: float = 1.0
    flip: bool = False

    def __post_init__(self) -> None:
        check_range("(0, inf)", scale=self.scale)

    @property
    def is_plain(self) -> bool:
        """Whether it shows the image as it is."""
        return self.scale == 1 and not self.flip


def views_of(scales: Sequence[float], *, flip: bool) -> tuple[View, ...]:
    """Every scale as it is, and mirrored if ``flip``.

    Raises:
        ValueError: For no scale, one that is not positive, or the same twice.
    """
    if not scales or len(set(scales)) != len(scales):
        raise ValueError(f"scales is {list(scales)}: at least one factor is needed, each of them once")
    return tuple(View(scale, is_flipped) for scale in scales for is_flipped in (False, True)[: 1 + flip])


@dataclass(frozen=True)
class Seen:
    """A batch in one view.

    Attributes:
        images: (B, 3, H, W) network input on its own canvas.
        sizes: Size of each image inside it.
        factors: (B, 1, 4) size of the view over that of the plain image, ``(x, y, x, y)``.
        limits: (B, 4) ``(width, height, width, height)`` of each image in the view.
        flip: Whether it is mirrored.
    """

    images: Tensor
    sizes: list[Size]
    factors: Tensor
    limits: Tensor
    flip: bool

    def boxes(self, plain: Tensor) -> Tensor:
        """(B, R, 4) boxes of the plain images -> of the view."""
        return self._mirror(plain * self.factors)

    def plain_boxes(self, boxes: Tensor) -> Tensor:
        """(B, R, 4) or (B, R, K, 4) boxes of the view -> of the plain images."""
        factors = self.factors.view(-1, *(1,) * (boxes.ndim - 2), 4)
        return self._mirror(boxes) / factors

    def plain_masks(self, masks: Tensor) -> Tensor:
        """(…, M, M) masks over boxes of the view -> over those of the plain images."""
        return masks.flip(-1) if self.flip else masks

    def _mirror(self, boxes: Tensor) -> Tensor:
        if not self.flip:
            return boxes
        width = self.limits[:, 0].view(-1, *(1,) * (boxes.ndim - 2))
        x1, y1, x2, y2 = boxes.unbind(-1)
        return torch.stack([width - x2, y1, width - x1, y2], dim=-1)


def look(images: Tensor, sizes: Sequence[Size], view: View) -> Seen:
    """A batch as a view shows it: bilinear, on a canvas of its own.

    Args:
        images: (B, 3, H, W) normalised, zero outside each image.
        sizes: (height, width) of each image inside the canvas.
        view: The plain view takes the batch as it is.
    """
    if view.is_plain:
        limits = image_limits(sizes, images.device)
        return Seen(images, list(sizes), torch.ones_like(limits)[:, None], limits, flip=False)
    new_sizes = [(max(round(h * view.scale), 1), max(round(w * view.scale), 1)) for h, w in sizes]
    canvas = canvas_of((max(h for h, _ in new_sizes), max(w for _, w in new_sizes)))
    shown = images.new_zeros(len(images), images.shape[1], *canvas)
    for row, image, (h, w), (new_h, new_w) in zip(shown, images, sizes, new_sizes, strict=True):
        inside = F.interpolate(image[None, :, :h, :w], size=(new_h, new_w), mode="bilinear", align_corners=False)[0]
        row[:, :new_h, :new_w] = inside.flip(-1) if view.flip else inside
    limits = image_limits(new_sizes, images.device)
    factors = limits / image_limits(sizes, images.device)
    return Seen(shown, new_sizes, factors[:, None], limits, view.flip)
