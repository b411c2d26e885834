"""Thumbnails of the strips that a run drew of a few validation images, cut into one picture per loop."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from r3cnn.disk import open_regular
from r3cnn.reporting.drawing import panels_of_strip
from r3cnn.run_files import LOOPS, PICTURES, own_file

MOST_BYTES, MOST_PIXELS = 64 * 2**20, 50_000_000  # of a strip; ours have 900 pixels a loop at most
SMALLEST_SIDE = 96
BYTES_PER_PIXEL = 0.15  # of WebP, for the first try


@dataclass(frozen=True)
class PictureSettings:
    """How many pictures, and how large.

    Attributes:
        images: Images per run, spread over those that it drew; 0 for none.
        side: Longer side of a picture in pixels, at most.
        quality: Of the WebP files, in [1, 100].
        total_mib: What the pictures of all runs take in the page, in MiB; those of many runs are smaller and fewer.
    """

    images: int
    side: int
    quality: int
    total_mib: float


@dataclass(frozen=True)
class LoopPictures:
    """One image after every loop.

    Attributes:
        name: Of the image, as it is called in the names of the run's pictures.
        width: Of the pictures, in pixels.
        height: Of the pictures, in pixels.
        uris: The pictures themselves, as data URIs, loop 1 first.
    """

    name: str
    width: int
    height: int
    uris: tuple[str, ...]


class NoPicturesError(ValueError):
    """There are no pictures to show; the message says why."""


def loop_pictures(folder: Path, num_loops: int, settings: PictureSettings, runs: int) -> list[LoopPictures]:
    """What a run drew of a few images, loop by loop; nothing but files in its own folder is shown.

    Args:
        folder: Of the finished run.
        num_loops: Loops that were scored.
        settings: How many pictures, and how large.
        runs: Number of runs that share the room.

    Raises:
        NoPicturesError: If there is none, or one is not what a run draws.
    """
    if not settings.images:
        return []
    files = sorted(folder.glob(f"{PICTURES}/*{LOOPS}"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise NoPicturesError(f"the run's folder has no {PICTURES}/*{LOOPS}: pictures={settings.images} draws them")
    count = min(settings.images, len(files))
    chosen = [files[position * len(files) // count] for position in range(count)]
    try:
        images = [_panels(folder, file, num_loops) for file in chosen]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all that pillow may raise
        raise NoPicturesError(f"{error}") from error
    most = settings.total_mib * 2**20 * 3 / 4 / runs  # as text they take a third more
    side = min(settings.side, math.isqrt(int(most / (count * num_loops) / BYTES_PER_PIXEL)))
    while True:
        side = max(side, min(SMALLEST_SIDE, settings.side))
        drawn = [[_webp(panel, side, settings.quality) for panel in panels] for panels in images]
        size = sum(len(picture) for pictures in drawn for picture in pictures)
        if size <= most:
            break
        if side > SMALLEST_SIDE:
            side = int(side * 0.9 * math.sqrt(most / size))
        elif not (images := images[:-1]):
            raise NoPicturesError("there is no room: name fewer runs, or raise html.pictures.total_mib")
    return [
        LoopPictures(file.name.removesuffix(LOOPS), *_size(panels[0], side), tuple(map(_data_uri, pictures)))
        for file, panels, pictures in zip(chosen, images, drawn, strict=False)
    ]


def _panels(folder: Path, file: Path, count: int) -> Sequence[Image.Image]:
    path = own_file(folder, str(file.relative_to(folder)))
    with open_regular(path, MOST_BYTES) as stream, Image.open(stream, formats=("PNG",)) as strip:
        if strip.width * strip.height > MOST_PIXELS:
            raise ValueError(f"{path} has {strip.width} x {strip.height} pixels, which no run draws")
        return panels_of_strip(strip.convert("RGB"), count)


def _size(panel: Image.Image, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(panel.size))
    return max(1, round(panel.width * scale)), max(1, round(panel.height * scale))


def _webp(panel: Image.Image, side: int, quality: int) -> bytes:
    buffer = io.BytesIO()
    panel.resize(_size(panel, side), reducing_gap=2).save(buffer, "WEBP", quality=quality, method=2)
    return buffer.getvalue()


def _data_uri(picture: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(picture).decode()
