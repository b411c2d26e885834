"""Recipes that change a training image beyond the paper's flip; all of them functions of (seed, epoch, image id)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from r3cnn.data.transforms import Window, resize_image, resized_size
from r3cnn.ranges import check_range
from r3cnn.structures import Size

Sampling = Literal["choice", "range"]
FRAME_STREAM, COLOR_STREAM = 1, 2
"""Each part has random numbers of its own, so that one recipe draws the same with or without another."""


@dataclass(frozen=True)
class Frame:
    """What becomes of the image's geometry: first the resize, then the cut, then the flip.

    Attributes:
        size: The whole image after its resize, in pixels.
        window: Part of the resized image that is kept.
    """

    size: Size
    window: Window

    @classmethod
    def whole(cls, size: Size) -> Frame:
        """A resize to ``size`` and no cut."""
        return cls(size, Window(0, 0, size[1], size[0]))


class Scaling(ABC):
    """How large an image is trained on, and which part of it."""

    @abstractmethod
    def frame(self, size: Size, bounds: Size, random: np.random.Generator) -> Frame:
        """Draws a frame.

        Args:
            size: Size of the image file in pixels.
            bounds: ``data.image_size``, upper bounds of the (shorter, longer) side in pixels.
            random: Source of the draw.
        """


@dataclass(frozen=True)
class FixedScale(Scaling):
    """Every image at ``data.image_size``, as in the paper."""

    def frame(self, size: Size, bounds: Size, random: np.random.Generator) -> Frame:
        """Largest size within the bounds; nothing is drawn."""
        return Frame.whole(resized_size(size, bounds))


@dataclass(frozen=True)
class MultiScale(Scaling):
    """The bound of the shorter side is drawn anew each time; that of the longer side stays.

    Attributes:
        short_sides: With ``choice`` the bounds to choose from, with ``range`` the least and the largest one; pixels.
        sampling: ``choice``: each with the same probability; ``range``: any whole number between the two.
    """

    short_sides: Sequence[int]
    sampling: Sampling

    def __post_init__(self) -> None:
        check_range("[1, inf)", short_sides=self.short_sides)
        if self.sampling == "range" and (len(self.short_sides) != 2 or self.short_sides[0] > self.short_sides[1]):
            raise ValueError(f"short_sides is {list(self.short_sides)}: sampling=range needs [least, largest]")

    def frame(self, size: Size, bounds: Size, random: np.random.Generator) -> Frame:
        """Draws the shorter side's bound.

        Raises:
            ValueError: If a short side is above the longer side's bound, which would then decide alone.
        """
        if max(self.short_sides) > bounds[1]:
            raise ValueError(
                f"short_sides reach {max(self.short_sides)}, the longer side is bounded by {bounds[1]}: "
                f"lower augmentation.scaling.short_sides or raise data.image_size={list(bounds)}"
            )
        if self.sampling == "choice":
            short = self.short_sides[int(random.integers(len(self.short_sides)))]
        else:
            short = int(random.integers(self.short_sides[0], self.short_sides[1] + 1))
        return Frame.whole(resized_size(size, (short, bounds[1])))


@dataclass(frozen=True)
class LargeScaleJitter(Scaling):
    """A scale far from 1, then a cut of fixed size at a random place (arXiv 2012.07177, section 3).

    An image that stays smaller than the cut is used as it is: the batch's canvas pads it with the mean colour at the
    right and the bottom, as the paper does, but only as far as the other images of the batch reach.

    Attributes:
        scales: Least and largest factor, drawn uniformly, of the size at which the image just fits into ``crop``.
        crop: Largest (height, width) that is kept, in pixels.
    """

    scales: Sequence[float]
    crop: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.scales) != 2 or not 0 < self.scales[0] <= self.scales[1] < math.inf:
            raise ValueError(f"scales is {list(self.scales)}: [least, largest] is needed, both above 0")
        if len(self.crop) != 2 or min(self.crop) < 1:
            raise ValueError(f"crop is {list(self.crop)}: (height, width) in pixels is needed")

    def frame(self, size: Size, bounds: Size, random: np.random.Generator) -> Frame:
        """Draws the scale, then the upper left corner of the cut."""
        scale = random.uniform(self.scales[0], self.scales[1]) * min(self.crop[0] / size[0], self.crop[1] / size[1])
        height, width = (max(int(side * scale + 0.5), 1) for side in size)
        kept = (min(height, self.crop[0]), min(width, self.crop[1]))
        top, left = int(random.integers(height - kept[0] + 1)), int(random.integers(width - kept[1] + 1))
        return Frame((height, width), Window(left, top, kept[1], kept[0]))


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue (SSD, arXiv 1512.02325), each drawn with ``probability``.

    Contrast comes before or after saturation and hue, with even chances, as in SSD.

    Attributes:
        probability: Of each of the four, in [0, 1]; 0 changes nothing.
        brightness: Least and largest factor of the pixels.
        contrast: Least and largest factor of the distance from the mean grey.
        saturation: Least and largest factor of the distance from grey.
        hue: Least and largest shift, within [-0.5, 0.5] turns of the colour wheel.
    """

    probability: float
    brightness: Sequence[float]
    contrast: Sequence[float]
    saturation: Sequence[float]
    hue: Sequence[float]

    def __post_init__(self) -> None:
        check_range("[0, 1]", probability=self.probability)
        for name, least, largest in (
            ("brightness", 0.0, math.inf),
            ("contrast", 0.0, math.inf),
            ("saturation", 0.0, math.inf),
            ("hue", -0.5, 0.5),
        ):
            given = getattr(self, name)
            if len(given) != 2 or not least <= given[0] <= given[1] <= largest or given[1] == math.inf:
                raise ValueError(f"{name} is {list(given)}: [least, largest] within [{least:g}, {largest:g}] is needed")

    def __call__(self, image: Tensor, random: np.random.Generator) -> Tensor:
        """A (3, h, w) uint8 RGB image with other colours; the same amount is drawn whatever is applied.

        Pillow changes them: two (hue) to seven times faster than torchvision's kernels for tensors.
        """
        is_on = random.random(4) < self.probability
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        amounts = [random.uniform(bounds[0], bounds[1]) for bounds in ranges]
        order = (0, 1, 2, 3) if random.random() < 0.5 else (0, 2, 3, 1)
        if not is_on.any():
            return image
        changes = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
        picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        for number in order:
            if is_on[number]:
                picture = changes[number](picture, amounts[number])
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


NO_COLOR = ColorJitter(0.0, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (0.0, 0.0))


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image before and beside the flip.

    Attributes:
        scaling: Its size and the part that is kept.
        color: Its colours.
    """

    scaling: Scaling = field(default_factory=FixedScale)
    color: ColorJitter = NO_COLOR

    def frame(self, size: Size, bounds: Size, key: tuple[int, int, int]) -> Frame:
        """Frame of an image of ``size``, drawn from ``key``: seed, epoch and image id, each >= 0."""
        return self.scaling.frame(size, bounds, np.random.default_rng((*key, FRAME_STREAM)))

    def image(self, pixels: Tensor, frame: Frame, key: tuple[int, int, int]) -> Tensor:
        """The image (3, h, w) uint8 as ``frame`` says, in colours drawn from ``key``.

        Colours are changed before the resize or after the cut, where there are fewer pixels.

        Args:
            pixels: (3, H, W) uint8 RGB of the image file.
            frame: Size and cut.
            key: Seed, epoch and image id, each >= 0.
        """
        is_first = pixels.shape[-2] * pixels.shape[-1] <= frame.window.height * frame.window.width
        if is_first:
            pixels = self._recolor(pixels, key)
        framed = cut(resize_image(pixels, frame.size), frame.window)
        return framed if is_first else self._recolor(framed, key)

    def _recolor(self, image: Tensor, key: tuple[int, int, int]) -> Tensor:
        if self.color.probability == 0:
            return image
        return self.color(image, np.random.default_rng((*key, COLOR_STREAM)))


def cut(image: Tensor, window: Window) -> Tensor:
    """The part of a (3, h, w) image inside ``window``, as a contiguous copy where it is not the whole."""
    if (window.height, window.width) == tuple(image.shape[-2:]):
        return image
    rows = slice(window.top, window.top + window.height)
    return image[:, rows, window.left : window.left + window.width].contiguous(memory_format=torch.contiguous_format)
