"""The image records of a COCO file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from r3cnn.data.checks import Problems, Record, checked, checked_file_name, checked_id, checked_side
from r3cnn.data.coco_file import Entry, decoded, parsed
from r3cnn.names import Id, Size

CHUNK = 2048
"""Records that are decoded at a time."""

INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Images:
    """I sound image records.

    Attributes:
        ids: (I,) int64; those of the file where 64 bits hold them all, else 1 to I in the order of the file's.
        file_ids: The file's id of each of ``ids`` where that is another.
        sizes: (I, 2) int64 (height, width) in pixels.
        file_names: As in the file.
        row_of: Row of each of the file's ids.
    """

    ids: npt.NDArray[np.int64]
    file_ids: Mapping[int, Id]
    sizes: npt.NDArray[np.int64]
    file_names: tuple[str, ...]
    row_of: Mapping[Id, int]


class _ImageRecord(msgspec.Struct, gc=False):
    id: int | float | str
    file_name: str
    height: int
    width: int


_DECODER = msgspec.json.Decoder(list[_ImageRecord])


def read_images(file: Path, entries: Sequence[Entry], problems: Problems) -> Images:
    """Checks image records; bad ones are left out, and everything that is wrong with them is noted."""
    row_of: dict[Id, int] = {}
    sizes: list[Size] = []
    names: list[str] = []
    for position, record in enumerate(_records(file, entries)):
        try:
            image_id, name = _new_id(record, row_of), checked_file_name(record)
            size = checked_side(record, "height"), checked_side(record, "width")
        except ValueError:
            problems.add("image", position, record.get("id"), _reasons(record, row_of))
            continue
        row_of[image_id] = len(names)
        names.append(name)
        sizes.append(size)
    ids, file_ids = _numbered(row_of)
    return Images(ids, file_ids, np.array(sizes, dtype=np.int64).reshape(-1, 2), tuple(names), row_of)


def _reasons(record: Record, taken: Mapping[Id, int]) -> list[str]:
    reasons: list[str] = []
    checked(reasons, _new_id, record, taken)
    checked(reasons, checked_file_name, record)
    for key in ("height", "width"):
        checked(reasons, checked_side, record, key)
    return reasons


def _new_id(record: Record, taken: Mapping[Id, int]) -> Id:
    found = checked_id(record)
    if found in taken:
        raise ValueError("has the id of another image: one of its own is needed")
    other = next(iter(taken), found)
    if isinstance(other, str) != isinstance(found, str):
        raise ValueError(f"has id {found!r}, others {other!r}: numbers and text do not mix, pycocotools sorts ids")
    return found


def _numbered(row_of: Mapping[Id, int]) -> tuple[npt.NDArray[np.int64], dict[int, Id]]:
    """Ids that 64 bits hold, in the order in which evaluation sorts those of the file, and these where they differ."""
    if all(isinstance(one, int) and one in INT64 for one in row_of):
        return np.fromiter(row_of, dtype=np.int64, count=len(row_of)), {}
    file_ids = dict(enumerate(sorted(row_of), start=1))
    own = {file_id: number for number, file_id in file_ids.items()}
    return np.array([own[file_id] for file_id in row_of], dtype=np.int64), file_ids


def _records(file: Path, entries: Sequence[Entry]) -> Iterator[Record]:
    """The fields that matter here, of all entries."""
    for start in range(0, len(entries), CHUNK):
        chunk = entries[start : start + CHUNK]
        for one in decoded(chunk, _DECODER) or chunk:
            if isinstance(one, _ImageRecord):
                yield {"id": one.id, "file_name": one.file_name, "height": one.height, "width": one.width}
            else:
                yield parsed(file, one)
