"""From image files to pixels, and from examples to batches."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, features
from torch import Tensor

from r3cnn.batch import Batch, Example
from r3cnn.structures import Size

log = logging.getLogger(__name__)
_ENDINGS = "avif bmp dib gif heic heif hif j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""Endings of what counts as an image in a folder; a file that is named itself may have any."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientations that mirror or turn an image, and what makes it upright; 1 is upright."""
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1")
MAX_MEGAPIXELS = 179.0
SIXTEEN_BITS = (0.0, 65535.0)
NAMED_AT_MOST = 3
LEAVING_OUT = "`r3cnn data check` lists all such files; data.on_bad_annotation=skip leaves them out"


class ImageError(ValueError):
    """An image file that cannot be used; the message names it."""


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file once it is decoded.

    Attributes:
        size: Size in pixels after EXIF rotation.
        is_turned: Whether its EXIF tag turns or mirrors it.
        has_pages: Whether it holds further pages or frames; only the first one is used.
        is_cut: Whether it has 16 bits per colour channel, of which Pillow reads the upper 8.
        values: Least and largest finite grey value, where it has more than 8 bits; else None.
        is_float: Whether these are floats.
        problem: Why its values cannot become 8 bits; empty where they can.
    """

    size: Size
    is_turned: bool
    has_pages: bool
    is_cut: bool
    values: tuple[float, float] | None
    is_float: bool
    problem: str


@dataclass(frozen=True)
class ImageReader:
    """How the image files of a data set become pixels.

    Attributes:
        image_range: Grey values (low, high) that become 0 and 255, in greyscale images of more than 8 bits (16 or 32
            bits, floats); what lies outside is clipped, and NaN is low. None: 0 and 65535; values outside, and floats,
            are refused. Images of 8 bits per channel are left as they are.
        max_megapixels: Images with more pixels are refused before they are decoded; None accepts any. Pillow's own
            limit, which holds for the whole process, is raised to it.
    """

    image_range: Sequence[float] | None = None
    max_megapixels: float | None = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        if self.image_range is not None:
            object.__setattr__(self, "image_range", checked_range(self.image_range))
        limit = self.max_megapixels
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0):
            raise ValueError(f"max_megapixels is {limit!r}: a number above 0 is needed, or null for no limit")

    def __call__(self, path: Path) -> Tensor:
        """(3, h, w) uint8 RGB of a file, turned as its EXIF tag says; alpha is dropped, and so are further pages.

        Raises:
            ImageError: For a file that cannot be read as an image.
        """
        with opened(path, self.max_megapixels) as file:
            pixels = self._pixels(file)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def examine(self, path: Path) -> ImageFacts:
        """Decodes a file; that its values cannot be scaled is one of the facts.

        Raises:
            ImageError: For a file that cannot be read as an image.
        """
        with opened(path, self.max_megapixels) as file:
            has_pages, is_cut = _has_pages(file), _is_cut(file)
            image, is_turned = upright(file)
            values, problem = None, self._problem_of_cut(is_cut)
            if _is_wide(image):
                values = _extremes(np.asarray(image))
                problem = self._problem_of(values, is_float=image.mode == "F")
            else:
                _rgb(image)
            size = (image.height, image.width)
        return ImageFacts(size, is_turned, has_pages, is_cut, values, image.mode == "F", problem)

    def _pixels(self, file: Image.Image) -> npt.NDArray[np.uint8]:
        """(h, w, 3), writable."""
        problem = self._problem_of_cut(_is_cut(file))
        if problem:
            raise ValueError(problem)
        if _has_pages(file):
            _warn_of_pages()
        image, _ = upright(file)
        return np.repeat(self._grey(image)[:, :, None], 3, axis=2) if _is_wide(image) else _rgb(image)

    def _grey(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """(h, w) of an image of more than 8 bits."""
        wide = np.asarray(image)
        if self.image_range is None and wide.dtype != np.uint16:
            problem = self._problem_of(_extremes(wide), is_float=image.mode == "F")
            if problem:
                raise ValueError(problem)
        low, high = self.image_range or SIXTEEN_BITS
        scaled = (wide.astype(np.result_type(wide, np.float32)) - low) * (255 / (high - low))
        return np.round(np.nan_to_num(scaled, nan=0.0).clip(0, 255)).astype(np.uint8)

    def _problem_of(self, values: tuple[float, float], *, is_float: bool) -> str:
        if self.image_range is not None or not (is_float or values[0] < SIXTEEN_BITS[0] or values[1] > SIXTEEN_BITS[1]):
            return ""
        kind = "are floats" if is_float else "are beyond 16 bits"
        return (
            f"its pixels {kind}, from {values[0]:g} to {values[1]:g}: say which values become 0 and 255, "
            "image_range=[low,high]; `r3cnn data check` proposes those of a data set"
        )

    def _problem_of_cut(self, is_cut: bool) -> str:
        if not is_cut or self.image_range is None:
            return ""
        return (
            "it has 16 bits per colour channel, of which Pillow reads the upper 8, so that "
            f"image_range={list(self.image_range)} cannot hold for it: store it with 8 bits"
        )


IN_8_BITS = ImageReader()


def checked_range(values: Sequence[float]) -> tuple[float, float]:
    """``image_range`` as two floats.

    Raises:
        ValueError: If it is no range.
    """
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"image_range is {values!r}: [low, high], two numbers in ascending order, or null is needed")
    return low, high


def read_image(path: Path, data: Mapping[str, object] | None = None) -> Tensor:
    """(3, h, w) uint8 RGB of a file, as the configuration of a data set wants its images read.

    Raises:
        ImageError: For a file that cannot be read as an image.
    """
    settings = {key: (data or {})[key] for key in ("image_range", "max_megapixels") if key in (data or {})}
    return ImageReader(**settings)(path)  # type: ignore[arg-type]  # they are checked


def proposed_range(values: tuple[float, float], *, is_float: bool) -> tuple[float, float]:
    """The ``image_range`` for a data set with these values: all numbers of so many bits, or just its own."""
    low, high = values
    if is_float:
        return (0.0, 1.0) if low >= 0 and high <= 1 else values
    bits = max(8, int(high).bit_length())
    return (0.0, 2.0**bits - 1) if low >= 0 and bits <= 16 else values


def is_image_file(path: Path) -> bool:
    """Whether a file of a folder is an image, by its name; hidden ones, such as ``._a.png`` of macOS, are none."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and _is_file(path)


def _is_file(path: Path) -> bool:
    """A link to what is not there counts, so that it is named where it is read: the file was not fetched."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def find_images(folder: Path, *, recursive: bool) -> list[Path]:
    """The images of a folder by name; other files are left out with a line in the log, hidden folders without one."""
    paths = sorted(folder.rglob("*") if recursive else folder.iterdir())
    files = [
        path
        for path in paths
        if _is_file(path) and not any(part.startswith(".") for part in path.parent.relative_to(folder).parts)
    ]
    images = [path for path in files if is_image_file(path)]
    others = sorted({*files} - {*images})
    if others:
        log.info("%s: skipped %d files that are no images: %s", folder, len(others), shortened(others))
    return images


def shortened(paths: Sequence[Path]) -> str:
    """The names of the first few."""
    names = ", ".join(path.name for path in paths[:NAMED_AT_MOST])
    return f"{names} and {len(paths) - NAMED_AT_MOST} more" if len(paths) > NAMED_AT_MOST else names


@cache
def warn_of_first(path: Path, reader: ImageReader) -> None:
    """Looks at the first image of a data set, and warns once of what a run would do to all of them in silence.

    Raises:
        ImageError: For a file that cannot be read as an image.
    """
    try:
        facts = reader.examine(path)
    except ImageError as error:
        raise ImageError(f"{error}; {LEAVING_OUT}") from error
    if facts.problem:
        raise ImageError(f"{path}: {facts.problem}")
    if facts.has_pages:
        _warn_of_pages()
    if facts.values is not None and reader.image_range is None:
        low, high = proposed_range(facts.values, is_float=facts.is_float)
        if high - low < SIXTEEN_BITS[1] / 4:
            log.warning(
                "%s has grey values from %g to %g, which become %d of 256 levels: data.image_range=[%g,%g] uses all "
                "of them; `r3cnn data check` proposes a range for the whole data set",
                *(path, *facts.values, round((facts.values[1] - facts.values[0]) / 257) + 1, low, high),
            )


@contextmanager
def opened(
    path: str | Path, max_megapixels: float | None = MAX_MEGAPIXELS, kind: str = "an image"
) -> Iterator[Image.Image]:
    """An image file whose header is read; its pixels are decoded once they are asked for.

    Raises:
        ImageError: For whatever goes wrong, in the ``with`` block as well; it names the file.
    """
    file_path = Path(path)
    try:
        # A stream, not a path: Pillow maps uncompressed TIFFs of a path with their sides swapped, if a tag turns them.
        _raise_pillows_limit(max_megapixels)
        with file_path.open("rb") as stream:
            start = stream.read(64)
            _refuse_what_is_no_image(start)
            _support_heif(start)
            with Image.open(stream) as file:
                if reason := _too_large(file.width * file.height, max_megapixels):
                    raise ValueError(reason)
                yield file
    except Image.DecompressionBombError as error:  # beyond twice Pillow's limit
        reason = _too_large(int(re.findall(r"\d+", str(error))[0]), max_megapixels)
        raise ImageError(f"{path}: cannot be read as {kind}: {reason or error}") from error
    except Exception as error:  # what decoders make of damaged bytes has no bounds
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "unknown image format"
        raise ImageError(f"{path}: cannot be read as {kind}: {reason or type(error).__name__}") from error


def upright(file: Image.Image) -> tuple[Image.Image, bool]:
    """The image turned as its EXIF tag says, and whether it was; its EXIF is neither rewritten nor need it be sound."""
    if file.format == "PNG":
        file.load()  # the tag may follow the pixels
    try:
        orientation = file.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF of cameras and programs is odd in more ways than Pillow knows
        orientation = None
    if file.format == "TIFF":  # else Pillow turns it while loading, and rewrites its EXIF
        setattr(file, "load_end", lambda: None)  # noqa: B010
    if orientation in TURNS:
        return file.transpose(TURNS[orientation]), True
    return file, False


def _raise_pillows_limit(max_megapixels: float | None) -> None:
    """Lets Pillow's own limit, which holds for the whole process, be no lower than ours."""
    if max_megapixels is None:
        Image.MAX_IMAGE_PIXELS = None
    elif Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, math.ceil(max_megapixels * 1e6))


def _too_large(pixels: int, max_megapixels: float | None) -> str:
    if max_megapixels is None or pixels <= max_megapixels * 1e6:
        return ""
    return (
        f"it has {pixels / 1e6:.1f} megapixels, max_megapixels={max_megapixels:g} are the most: if it is sound, "
        "raise that setting, data.max_megapixels, or max_megapixels of `r3cnn predict`"
    )


def _refuse_what_is_no_image(start: bytes) -> None:
    if not start:
        raise ValueError("it is empty")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError("it is a pointer of Git LFS to a file: fetch that with `git lfs pull`")


def _support_heif(start: bytes) -> None:
    """Lets Pillow read HEIC, as phones write it under any name; says what is missing to read that or AVIF."""
    if start[4:8] != b"ftyp":
        return
    if b"avif" in start or b"avis" in start:
        if not features.check("avif"):
            raise ValueError("it is an AVIF image, for which Pillow 11.3 or later is needed: pip install -U pillow")
    elif "HEIF" not in Image.OPEN and any(brand in start for brand in HEIC_BRANDS):
        try:
            from pillow_heif import register_heif_opener
        except ImportError as error:
            raise ValueError("it is a HEIC image, for which Pillow needs a package: pip install pillow-heif") from error
        register_heif_opener()


def _is_wide(image: Image.Image) -> bool:
    """Whether its grey values have more than 8 bits: modes F, I, I;16 and its like."""
    return image.mode[0] in "FI"


def _is_cut(file: Image.Image) -> bool:
    """Whether Pillow is about to read the upper 8 of 16 bits per channel."""
    tiles = getattr(file, "tile", ())
    return not _is_wide(file) and any(";16" in str(tile[3]) for tile in tiles)


def _has_pages(file: Image.Image) -> bool:
    """Whether there are further pages or frames; what phones put behind a JPEG image is none."""
    return file.format != "MPO" and bool(getattr(file, "is_animated", False))


@cache
def _warn_of_pages() -> None:
    log.warning("there are image files with several pages or frames: the first one of each is used")


def _extremes(wide: npt.NDArray[np.generic]) -> tuple[float, float]:
    """Least and largest value that is finite."""
    finite = wide[np.isfinite(wide)] if wide.dtype.kind == "f" else wide
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """(h, w, 3), writable, of an image of 8 bits per channel."""
    image.load()
    image.info.pop("transparency", None)  # alpha is dropped; Pillow would warn of it
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def collate(examples: Sequence[Example]) -> Batch:
    """Packs the examples of a batch; padding waits until they are on the device."""
    return Batch.of(examples)
