"""Checks of the records of a COCO file: each returns the clean value or raises ``ValueError`` with the reason."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
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
        found: One sentence per bad record, the record's name first.
    """

    file: Path
    found: list[str] = field(default_factory=list)
    _positions: dict[RecordKind, list[int]] = field(default_factory=lambda: {"image": [], "annotation": []})

    def add(self, kind: RecordKind, position: int, record_id: object, reason: str) -> None:
        """Notes that the image or annotation ``record_id``, at ``position`` of its list, is bad for ``reason``."""
        self.found.append(f"{kind} {record_id} {reason}")
        self._positions[kind].append(position)

    @property
    def rejected(self) -> Rejected:
        """Where the bad records stand in the file."""
        return Rejected(tuple(self._positions["image"]), tuple(self._positions["annotation"]))

    def report(self, on_bad_annotation: OnBadAnnotation) -> None:
        """Raises or logs, once.

        Raises:
            AnnotationError: With ``error``, if anything was found.
        """
        if not self.found:
            return
        more = f" (and {len(self.found) - 1} more bad records)" if len(self.found) > 1 else ""
        if on_bad_annotation == "error":
            hint = "repair the file, or leave such records out with on_bad_annotation=skip"
            raise AnnotationError(f"{self.file}: {self.found[0]}{more}: {hint}")
        log.warning("%s: left out %d bad records, first: %s", self.file, len(self.found), self.found[0])
        for sentence in self.found:
            log.debug("%s: left out %s", self.file, sentence)


def checked_id(record: Record, key: str = "id") -> int:
    """Integer id under ``key``."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"has {key} {value!r}: an integer is needed")
    return value


def checked_size(record: Record) -> Size:
    """(height, width) of an image record in pixels."""
    return _checked_side(record, "height"), _checked_side(record, "width")


def _checked_side(record: Record, key: str) -> int:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"has {key} {value!r}: an integer >= 1 is needed")
    return value


def checked_file_name(record: Record) -> str:
    """Path of the image file below the image folder; nothing that could lead out of it."""
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"has file_name {name!r}: a path below the image folder is needed")
    windows = PureWindowsPath(name)
    is_absolute = PurePosixPath(name).is_absolute() or bool(windows.drive or windows.root)
    if is_absolute or ".." in windows.parts or "\0" in name:
        raise ValueError(f"has file_name {name!r}, which leaves the image folder")
    return name


def checked_box(record: Record, size: Size) -> Box:
    """``(x1, y1, x2, y2)`` in pixels, clipped to the image, from a record's ``bbox`` ``[x, y, width, height]``."""
    given = record.get("bbox")
    if not isinstance(given, list) or len(given) != 4:
        raise ValueError(f"has bbox {given!r}: [x, y, width, height] is needed")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in given):
        raise ValueError(f"has bbox {given}: four finite numbers are needed")
    x, y, width, height = (float(value) for value in given)
    if width <= 0 or height <= 0:
        raise ValueError(f"has bbox {given} of zero area")
    overhang = max(-x, -y, x + width - size[1], y + height - size[0])
    box = (max(x, 0.0), max(y, 0.0), min(x + width, float(size[1])), min(y + height, float(size[0])))
    if overhang > MAX_OVERHANG or box[2] <= box[0] or box[3] <= box[1]:
        raise ValueError(f"has bbox {given}, which lies outside its image of (height, width) = {list(size)}")
    return box


def check_area_and_crowd(record: Record) -> None:
    """Looks at ``area`` and ``iscrowd``, which may be missing and which only evaluation needs.

    Raises:
        ValueError: With the reason, for an area that is no finite number >= 0, or a crowd flag other than 0 and 1.
    """
    area = record.get("area")
    if area is not None and not (isinstance(area, int | float) and math.isfinite(area) and area >= 0):
        raise ValueError(f"has area {area!r}: a number of pixels is needed")
    if record.get("iscrowd") not in (None, 0, 1):
        raise ValueError(f"has iscrowd {record['iscrowd']!r}: 0 or 1 is needed")
