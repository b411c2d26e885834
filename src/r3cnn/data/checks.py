"""Checks of the records of a COCO file: each returns the clean value or raises ``ValueError`` with the reason."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from r3cnn.structures import Size

OnBadAnnotation = Literal["error", "skip"]
RecordKind = Literal["image", "annotation"]
Record = Mapping[str, object]
Box = tuple[float, float, float, float]

MAX_OVERHANG = 1.0
"""Pixels by which a box may reach over its image: rounding of annotation tools, clipped without a word."""

MAX_ID = 2**63 - 1
MAX_IMAGE_SIDE = 65535
"""Pixels; no JPEG has longer sides, and run lengths of larger images are no 32-bit numbers."""

PLAIN_NAME = re.compile(r"[\w-]+(\.[\w-]+)*(/[\w-]+(\.[\w-]+)*)*", re.ASCII)
"""File names of letters, digits, -, _ and single dots, which cannot lead anywhere else."""

log = logging.getLogger(__name__)


class AnnotationError(ValueError):
    """An annotation file that cannot be trained on; the message names the file and the record."""


@dataclass(frozen=True)
class Rejected:
    """Bad records, by their positions in the lists of the annotation file: ids may be what is wrong with them.

    Attributes:
        images: Positions in ``images``, ascending.
        annotations: Positions in ``annotations``, ascending.
    """

    images: tuple[int, ...] = ()
    annotations: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.images) + len(self.annotations)


@dataclass
class Problems:
    """What is wrong in one annotation file: collected while reading, reported once.

    Attributes:
        file: The annotation file.
        found: One sentence for each thing that is wrong with a record, the record's name first.
        positions: Where the bad records stand in the lists of the file, each one once.
    """

    file: Path
    found: list[str] = field(default_factory=list)
    positions: dict[RecordKind, list[int]] = field(default_factory=lambda: {"image": [], "annotation": []})

    def add(self, kind: RecordKind, position: int, record_id: object, reasons: Sequence[str]) -> None:
        """Notes that the image or annotation ``record_id``, at ``position`` of its list, is bad for ``reasons``."""
        self.found += [f"{named(kind, record_id)} {reason}" for reason in reasons]
        self.positions[kind].append(position)

    @property
    def rejected(self) -> Rejected:
        """Where the bad records stand in the file."""
        return Rejected(tuple(self.positions["image"]), tuple(self.positions["annotation"]))

    def report(self, on_bad_annotation: OnBadAnnotation) -> None:
        """Raises or logs, once.

        Raises:
            AnnotationError: With ``error``, if anything was found.
        """
        if not self.found:
            return
        bad = len(self.rejected)
        more = f" (and {bad - 1} more bad records)" if bad > 1 else ""
        if on_bad_annotation == "error":
            hint = "repair the file, or leave such records out with on_bad_annotation=skip"
            raise AnnotationError(f"{self.file}: {self.found[0]}{more}: {hint}")
        log.warning("%s: left out %d bad records, first: %s", self.file, bad, self.found[0])
        for sentence in self.found:
            log.debug("%s: left out %s", self.file, sentence)


def named(kind: RecordKind, record_id: object) -> str:
    """What a record is called in a message, whatever its id is."""
    return f"{kind} {record_id if isinstance(record_id, int) and abs(record_id) <= MAX_ID else shortened(record_id)}"


def reasons_of(checks: Sequence[Callable[[], object]]) -> list[str]:
    """What each of ``checks`` finds wrong, in their order; nothing of those that pass."""
    found = []
    for check in checks:
        try:
            check()
        except ValueError as error:
            found.append(str(error))
    return found


def checked_id(record: Record, key: str = "id") -> int:
    """Integer id under ``key``."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"has {key} {shortened(value)}: an integer is needed")
    if abs(value) > MAX_ID:
        raise ValueError(f"has {key} {shortened(value)}: an integer of 64 bits is needed")
    return value


def shortened(value: object) -> str:
    """What stands in the file, cut to what fits into a message."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write integers of thousands of digits
        return "of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}…"


def is_finite(value: object) -> bool:
    """Whether a value is a number that floats can hold."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def checked_size(record: Record) -> Size:
    """(height, width) of an image record in pixels."""
    return checked_side(record, "height"), checked_side(record, "width")


def checked_side(record: Record, key: str) -> int:
    """Side of an image in pixels under ``key``."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_IMAGE_SIDE:
        raise ValueError(f"has {key} {shortened(value)}: an integer from 1 to {MAX_IMAGE_SIDE} is needed")
    return value


def checked_file_name(record: Record) -> str:
    """Path of the image file below the image folder; nothing that could lead out of it."""
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"has file_name {shortened(name)}: a path below the image folder is needed")
    if PLAIN_NAME.fullmatch(name):
        return name
    if not name.isprintable():
        raise ValueError(f"has file_name {shortened(name)}, with a character that no name should have")
    windows = PureWindowsPath(name)
    is_absolute = PurePosixPath(name).is_absolute() or bool(windows.drive or windows.root)
    if is_absolute or ".." in windows.parts:
        raise ValueError(f"has file_name {shortened(name)}, which leaves the image folder")
    return name


def checked_box(record: Record, size: Size) -> Box:
    """``(x1, y1, x2, y2)`` in pixels, clipped to the image, from a record's ``bbox`` ``[x, y, width, height]``."""
    x, y, width, height = given_box(record)
    overhang = max(-x, -y, x + width - size[1], y + height - size[0])
    box = (max(x, 0.0), max(y, 0.0), min(x + width, float(size[1])), min(y + height, float(size[0])))
    if overhang > MAX_OVERHANG or box[2] <= box[0] or box[3] <= box[1]:
        outside = f"which lies outside its image of (height, width) = {list(size)}"
        raise ValueError(f"has bbox {record['bbox']}, {outside}")
    return box


def given_box(record: Record) -> Box:
    """A record's ``bbox`` ``(x, y, width, height)`` in pixels, whatever the size of its image."""
    given = record.get("bbox")
    if not isinstance(given, list) or len(given) != 4:
        raise ValueError(f"has bbox {shortened(given)}: [x, y, width, height] is needed")
    if not all(map(is_finite, given)):
        raise ValueError(f"has bbox {shortened(given)}: four finite numbers are needed")
    x, y, width, height = (float(value) for value in given)
    if width <= 0 or height <= 0:
        raise ValueError(f"has bbox {given} of zero area: width and height above 0 are needed")
    return x, y, width, height


def check_area(record: Record) -> None:
    """Looks at ``area``, which may be missing: a finite number >= 0, which only evaluation needs."""
    area = record.get("area")
    if area is not None and not (isinstance(area, int | float) and is_finite(area) and area >= 0):
        raise ValueError(f"has area {shortened(area)}: a number of pixels >= 0 is needed")


def check_crowd(record: Record) -> None:
    """Looks at ``iscrowd``, which may be missing: 0 or 1."""
    if record.get("iscrowd") not in (None, 0, 1):
        raise ValueError(f"has iscrowd {shortened(record['iscrowd'])}: 0 or 1 is needed")
