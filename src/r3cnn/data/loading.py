"""From image files to pixels, and from examples to batches."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, features
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH
from torch import Tensor

from r3cnn.batch import Batch, Example
from r3cnn.disk import open_regular
from r3cnn.ranges import check_range
from r3cnn.structures import Size

T = TypeVar("T", bound=np.generic)

log = logging.getLogger(__name__)
_ENDINGS = "avif bmp dib gif heic heif hif j2k jfif jp2 jpe jpeg jpg pbm pgm png pnm ppm tga tif tiff webp"
IMAGE_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""Endings of what counts as an image in a folder; a file that is named itself may have any."""
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What Pillow may take a file for, whatever its name: among the others are some that start programs."""
HUNGRY = {"AVIF": 1.3, "JPEG2000": 2.6, "WEBP": 2.6}
"""Formats whose decoders take so many times the memory of others for each pixel, as measured."""
TURNED: dict[int, Callable[[npt.NDArray[np.generic]], npt.NDArray[np.generic]]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}
"""EXIF orientations that mirror or turn an image, and the view of upright pixels that is as they are stored."""
FIRST_LYING = 5
"""Orientations from here on swap the sides."""
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1")
MAX_MEGAPIXELS = 65.0
"""Those of the largest phone cameras but one; a process that reads such a file stays below 1 GB."""
BYTES_PER_PIXEL = 16
"""Of a file; no format that is read needs more."""
STRIP = 2**20
"""Pixels of an image that are worked on at a time."""
SCAN = re.compile(rb"\xff\xda\x00[\x08\x0a\x0c\x0e][\x01-\x04]")
MOST_SCANS = 100
"""Passes over a JPEG image; each takes time however few bytes it has, and encoders write about ten."""
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
        max_megapixels: Images with more pixels are refused before they are decoded, earlier those of formats that
            take more memory (`HUNGRY`); None accepts any. Pillow's own limit, which holds for the whole
            process, is raised to it.
    """

    image_range: Sequence[float] | None = None
    max_megapixels: float | None = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        if self.image_range is not None:
            object.__setattr__(self, "image_range", checked_range(self.image_range))
        check_range("(0, inf)", max_megapixels=self.max_megapixels)

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
            _load(file)
            orientation = _orientation(file)
            values, problem = None, self._problem_of_cut(is_cut)
            is_float = file.mode == "F"
            if _is_wide(file):
                values = _extremes(file)
                problem = self._problem_of(values, is_float=is_float)
            size = file.size if orientation >= FIRST_LYING else file.size[::-1]
        return ImageFacts(size, orientation > 1, has_pages, is_cut, values, is_float, problem)

    def _pixels(self, file: Image.Image) -> npt.NDArray[np.uint8]:
        """(h, w, 3), writable."""
        problem = self._problem_of_cut(_is_cut(file))
        if problem:
            raise ValueError(problem)
        if _has_pages(file):
            _warn_of_pages()
        _load(file)
        if not _is_wide(file):
            return upright(file, _rgb)
        if self.image_range is None and not file.mode.startswith("I;16"):
            problem = self._problem_of(_extremes(file), is_float=file.mode == "F")
            if problem:
                raise ValueError(problem)
        return upright(file, self._grey)

    def _grey(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """(h, w, 3) of an image of more than 8 bits."""
        wide = np.asarray(image)
        low, high = self.image_range or SIXTEEN_BITS
        scaled = (wide.astype(np.result_type(wide, np.float32)) - low) * (255 / (high - low))
        grey = np.round(np.nan_to_num(scaled, nan=0.0).clip(0, 255)).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)

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
        if not path.is_dir() and not any(part.startswith(".") for part in path.parent.relative_to(folder).parts)
    ]
    images = [path for path in files if is_image_file(path)]
    others = sorted({*files} - {*images})
    if others:
        log.info("%s: skipped %d of %d files: no images: %s", folder, len(others), len(files), shortened(others))
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
    most_bytes = None if max_megapixels is None else math.ceil(max_megapixels * 1e6 * BYTES_PER_PIXEL) + 2**20
    try:
        # A stream, not a path: Pillow maps uncompressed TIFFs of a path with their sides swapped, if a tag turns them.
        _raise_pillows_limit(max_megapixels)
        with open_regular(Path(path), most_bytes) as stream:
            start = stream.read(64)
            _refuse_what_is_no_image(start)
            _support_heif(start)
            Image.init()
            with Image.open(stream, formats=[name for name in FORMATS if name in Image.OPEN]) as file:
                _check_cost(file, stream, max_megapixels)
                if file.format == "TIFF":  # else Pillow turns it while loading, and rewrites its EXIF
                    _orientation(file)  # which is read from the file, and kept: loading closes that
                    setattr(file, "load_end", lambda: None)  # noqa: B010
                yield file
    except Image.DecompressionBombError as error:  # beyond twice Pillow's limit
        reason = _too_large(int(re.findall(r"\d+", str(error))[0]), max_megapixels)
        raise ImageError(f"{path}: cannot be read as {kind}: {reason or error}") from error
    except Exception as error:  # what decoders make of damaged bytes has no bounds
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "unknown image format"
        raise ImageError(f"{path}: cannot be read as {kind}: {reason or type(error).__name__}") from error


def upright(file: Image.Image, values: Callable[[Image.Image], npt.NDArray[T]]) -> npt.NDArray[T]:
    """``values`` of an image, turned as its EXIF tag says; of strips of a large one, so that no copy of it is made."""
    _load(file)
    orientation, rows = _orientation(file), max(STRIP // file.width, 1)
    first = values(file if rows >= file.height else file.crop((0, 0, file.width, rows)))
    if orientation == 1 and len(first) == file.height:
        return first
    size = file.size if orientation >= FIRST_LYING else file.size[::-1]
    pixels = np.empty((*size, *first.shape[2:]), first.dtype)
    stored = TURNED.get(orientation, np.asarray)(pixels)
    stored[:rows] = first
    for top in range(rows, file.height, rows):
        bottom = min(top + rows, file.height)
        stored[top:bottom] = values(file.crop((0, top, file.width, bottom)))
    return pixels


def _load(file: Image.Image) -> None:
    file.load()
    if file.format == "TIFF":  # what Pillow would have turned is called as large as if it had
        setattr(file, "_size", file.im.size)  # noqa: B010


def _orientation(file: Image.Image) -> int:
    """The EXIF tag of a loaded image, which need not be sound: a key of `TURNED`, or 1."""
    try:
        orientation = file.getexif().get(ExifTags.Base.Orientation)
        return orientation if orientation in TURNED else 1
    except Exception:  # EXIF of cameras and programs is odd in more ways than Pillow knows
        return 1


def _raise_pillows_limit(max_megapixels: float | None) -> None:
    """Lets Pillow's own limit, which holds for the whole process, be no lower than ours."""
    if max_megapixels is None:
        Image.MAX_IMAGE_PIXELS = None
    elif Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, math.ceil(max_megapixels * 1e6))


def _check_cost(file: Image.Image, stream: BinaryIO, max_megapixels: float | None) -> None:
    """Refuses what would take too much memory or time to decode, by what its header says."""
    name = str(file.format)
    tile = [getattr(file, "tag_v2", {}).get(tag) for tag in (TILEWIDTH, TILELENGTH)]
    pixels = max(file.width * file.height, math.prod(side for side in tile if isinstance(side, int)))
    if reason := _too_large(pixels, max_megapixels, name):
        raise ValueError(reason)
    if name in ("JPEG", "MPO"):
        place = stream.tell()
        stream.seek(0)
        scans = len(SCAN.findall(stream.read()))
        stream.seek(place)
        if scans > MOST_SCANS:
            raise ValueError(f"it is a JPEG image of {scans} scans: at most {MOST_SCANS} are read")


def _too_large(pixels: int, max_megapixels: float | None, name: str = "") -> str:
    factor = HUNGRY.get(name, 1)
    if max_megapixels is None or pixels * factor <= max_megapixels * 1e6:
        return ""
    own = f" ({max_megapixels / factor:.3g} for {name}, which takes more memory)" if factor > 1 else ""
    return (
        f"it has {pixels / 1e6:.1f} megapixels, max_megapixels={max_megapixels:g} are the most{own}: if it is sound, "
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


def _extremes(image: Image.Image) -> tuple[float, float]:
    """Least and largest value that is finite."""
    found: list[float] = []
    rows = max(STRIP // image.width, 1)
    for top in range(0, image.height, rows):
        wide = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        finite = wide[np.isfinite(wide)] if wide.dtype.kind == "f" else wide
        found += [float(finite.min()), float(finite.max())] if finite.size else []
    return (min(found), max(found)) if found else (0.0, 0.0)


def _rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    """(h, w, 3), writable, of an image of 8 bits per channel."""
    image.info.pop("transparency", None)  # alpha is dropped; Pillow would warn of it
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def collate(examples: Sequence[Example]) -> Batch:
    """Packs the examples of a batch; padding waits until they are on the device."""
    return Batch.of(examples)
