"""COCO run-length codes: from the places where masks switch on and off to compressed strings."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TypedDict, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from r3cnn.structures import Size

IntArray = NDArray[np.int64]


class Rle(TypedDict):
    """A COCO mask: ``size`` is [height, width]; ``counts`` is the compressed string."""

    size: list[int]
    counts: str


class TextStore:
    """Keeps texts in memory up to a limit, and the others in a file without a name that is gone with the process.

    Where the file has no room for a text either, it stays in memory.

    Args:
        room: Bytes that may stay in memory.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._file: IO[bytes] | None = None
        self._length = 0

    def keep(self, text: bytes) -> bytes | FileText:
        """Something that can be sliced as the text can."""
        if len(text) <= self._room:
            self._room -= len(text)
            return text
        with suppress(OSError):
            self._file = self._file or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as its texts
            if os.pwrite(self._file.fileno(), text, self._length) == len(text):
                self._length += len(text)
                return FileText(self._file, self._length - len(text), len(text))
        return text


@dataclass(frozen=True, slots=True)
class FileText:
    """A text that lies in a file; copies hold the text itself."""

    file: IO[bytes]
    start: int
    length: int

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self.length)
        return os.pread(self.file.fileno(), stop - start, self.start + start)

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        return bytes, (self[:],)


@dataclass
class EncodedMasks:
    """D masks of one image, in two arrays: a validation keeps millions.

    Attributes:
        text: Compressed COCO counts of all masks, one after the other.
        stops: (D,) uint32, where those of each mask end.
        areas: (D,) uint32, pixels that belong to the mask.
    """

    text: bytes | FileText
    stops: NDArray[np.uint32]
    areas: NDArray[np.uint32]

    @classmethod
    def of(cls, counts: Sequence[bytes], areas: Sequence[int] | IntArray) -> EncodedMasks:
        """Masks by the compressed counts and the area of each."""
        stops = np.cumsum([len(one) for one in counts], dtype=np.uint32)
        return cls(b"".join(counts), stops, np.asarray(areas, dtype=np.uint32))

    def move_to(self, store: TextStore) -> None:
        """Lets the text lie where the store has room for it."""
        if isinstance(self.text, bytes):
            self.text = store.keep(self.text)

    @property
    def counts(self) -> tuple[bytes, ...]:
        """Compressed COCO counts of each mask."""
        return self.counts_of(range(len(self.stops)))

    def counts_of(self, rows: Sequence[int]) -> tuple[bytes, ...]:
        """Those of some masks, by their numbers."""
        bounds = [0, *self.stops.tolist()]
        return tuple(self.text[bounds[row] : bounds[row + 1]] for row in rows)


def encode_switches(switches: IntArray, num_masks: int, image_size: Size) -> EncodedMasks:
    """Encodes masks that are given by the places where their value changes.

    Args:
        switches: (N,) ``mask * (H * W + 1) + position``, ascending. Position counts pixels down the image's columns,
            from 0 to H * W; each mask has an even number. A pair of equal entries (one column ends switched on, the
            next begins so) cancels.
        num_masks: D; masks without any switch are empty.
        image_size: Size of the image in pixels.
    """
    if not num_masks:
        return EncodedMasks.of((), ())
    total = image_size[0] * image_size[1]
    repeats = switches[1:] == switches[:-1]
    keep = np.ones(len(switches), dtype=bool)
    keep[1:] &= ~repeats
    keep[:-1] &= ~repeats
    switches = switches[keep]
    bounds = np.searchsorted(switches, np.arange(num_masks + 1) * (total + 1))
    positions = switches % (total + 1)
    runs = [_runs(positions[start:stop], total) for start, stop in itertools.pairwise(bounds)]
    size = [image_size[0], image_size[1]]
    codes = coco_mask.frPyObjects([{"size": size, "counts": run} for run in runs], *image_size)
    return EncodedMasks.of([cast(bytes, code["counts"]) for code in codes], [int(run[1::2].sum()) for run in runs])


def _runs(positions: IntArray, total: int) -> IntArray:
    """Lengths of the runs of 0, 1, 0, … pixels; the first may be 0, the last may not (as pycocotools writes them)."""
    closed = positions if len(positions) and positions[-1] == total else np.append(positions, total)
    return np.diff(closed, prepend=0)
