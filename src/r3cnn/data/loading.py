"""From image files to batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from r3cnn.batch import Batch, Example
from r3cnn.data.transforms import resize_image, resized_size
from r3cnn.structures import Size

UPRIGHT = 1
TURNS = range(2, 9)
"""EXIF orientations: as it is, and those that mirror an image or turn it."""


class ImageError(ValueError):
    """An image file that cannot be used; the message names it."""


def load_image(path: Path, image_size: tuple[int, int]) -> tuple[Tensor, Size]:
    """Reads an image and resizes it, keeping its aspect ratio.

    Args:
        path: Image file of any kind that Pillow reads.
        image_size: Upper bounds of the (shorter, longer) side in pixels.

    Returns:
        (3, h, w) uint8 RGB, and the size of the file's image in pixels, after EXIF rotation.

    Raises:
        ImageError: For a file that cannot be read as an image.
    """
    image = read_image(path)
    size = (image.shape[-2], image.shape[-1])
    return resize_image(image, resized_size(size, image_size)), size


def read_image(path: Path) -> Tensor:
    """(3, h, w) uint8 RGB of a file, turned as its EXIF tag says; alpha is dropped, 16 bits become 8.

    Raises:
        ImageError: For a file that cannot be read as an image.
    """
    try:
        # A stream, not a path: Pillow maps uncompressed TIFFs of a path with their sides swapped, if a tag turns them.
        with path.open("rb") as stream, Image.open(stream) as file:
            ImageOps.exif_transpose(file, in_place=True)
            pixels = _to_rgb(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: cannot be read as an image: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def is_turned(path: Path) -> bool:
    """Whether an EXIF tag turns or mirrors the image of a file that can be read."""
    with path.open("rb") as stream, Image.open(stream) as file:
        return file.getexif().get(ExifTags.Base.Orientation, UPRIGHT) in TURNS


def _to_rgb(image: Image.Image) -> np.ndarray:
    """(h, w, 3) uint8, writable."""
    if image.mode == "F":
        raise ValueError("its pixels are floats, whose range is unknown")
    if image.mode.startswith("I"):  # 16-bit greyscale, which convert("RGB") would cut off at 255 instead of scaling
        wide = np.asarray(image).astype(np.float32)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"its pixels reach from {wide.min():g} to {wide.max():g}, 16 bits are the most")
        grey = np.round(wide / 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def collate(examples: Sequence[Example]) -> Batch:
    """Packs the examples of a batch; padding waits until they are on the device."""
    return Batch.of(examples)
