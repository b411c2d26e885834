"""The image records of a COCO file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from r3cnn.data.checks import Problems, Record, checked_file_name, checked_id, checked_size
from r3cnn.data.coco_file import Entry, decoded, parsed
from r3cnn.data.record_problems import REPEATED_IMAGE, image_problems
from r3cnn.structures import Size

CHUNK = 2048
"""Records that are decoded at a time."""


@dataclass(frozen=True)
class Images:
    """I sound image records.

    Attributes:
        ids: (I,) int64.
        sizes: (I, 2) int64 (height, width) in pixels.
        file_names: Below the image folder.
        row_of: Row of each id.
    """

    ids: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    file_names: tuple[str, ...]
    row_of: Mapping[int, int]


class _ImageRecord(msgspec.Struct, gc=False):
    id: int
    file_name: str
    height: int
    width: int


_DECODER = msgspec.json.Decoder(list[_ImageRecord])


def read_images(file: Path, entries: Sequence[Entry], problems: Problems) -> Images:
    """Checks image records; bad ones are left out, and everything that is wrong with them is noted."""
    row_of: dict[int, int] = {}
    sizes: list[Size] = []
    names: list[str] = []
    for position, record in enumerate(_records(file, entries)):
        try:
            image_id = checked_id(record)
            if image_id in row_of:
                raise ValueError(REPEATED_IMAGE)
            name, size = checked_file_name(record), checked_size(record)
        except ValueError:
            problems.add("image", position, record.get("id"), image_problems(record, row_of))
            continue
        row_of[image_id] = len(names)
        names.append(name)
        sizes.append(size)
    ids = np.fromiter(row_of, dtype=np.int64, count=len(row_of))
    return Images(ids, np.array(sizes, dtype=np.int64).reshape(-1, 2), tuple(names), row_of)


def _records(file: Path, entries: Sequence[Entry]) -> Iterator[Record]:
    """The fields that matter here, of all entries."""
    for start in range(0, len(entries), CHUNK):
        chunk = entries[start : start + CHUNK]
        for one in decoded(chunk, _DECODER) or chunk:
            if isinstance(one, _ImageRecord):
                yield {"id": one.id, "file_name": one.file_name, "height": one.height, "width": one.width}
            else:
                yield parsed(file, one)
