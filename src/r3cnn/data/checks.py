"""Checks of the records of a COCO file: each returns the clean value or raises ``ValueError`` with the reason."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, ParamSpec, TypeGuard, TypeVar
from urllib.parse import unquote, urlsplit

from r3cnn.names import Id, Size

OnBadAnnotation = Literal["error", "skip"]
RecordKind = Literal["image", "annotation"]
Record = Mapping[str, object]
Box = tuple[float, float, float, float]

MAX_IMAGE_SIDE = 65535
"""Pixels; no JPEG has longer sides, and run lengths of larger images are no 32-bit numbers."""

UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and halves of characters, which no file system takes."""

P = ParamSpec("P")
T = TypeVar("T")

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
        found: One sentence for each bad record, the record's name first, then everything that is wrong with it.
        notes: One sentence for each thing that looks wrong, but is no reason to refuse the file.
        positions: Where the bad records stand in the lists of the file.
    """

    file: Path
    found: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    positions: dict[RecordKind, list[int]] = field(default_factory=lambda: {"image": [], "annotation": []})

    def add(self, kind: RecordKind, position: int, record_id: object, reasons: Sequence[str]) -> None:
        """Notes that the image or annotation ``record_id``, at ``position`` of its list, is bad for ``reasons``."""
        self.found.append(f"{named(kind, record_id, position)} {'; '.join(reasons)}")
        self.positions[kind].append(position)

    @property
    def rejected(self) -> Rejected:
        """Where the bad records stand in the file."""
        return Rejected(tuple(self.positions["image"]), tuple(self.positions["annotation"]))

    def report(self, on_bad_annotation: OnBadAnnotation) -> None:
        """Raises or logs, once.

        Raises:
            AnnotationError: With ``error``, if a record is bad.
        """
        if self.found and on_bad_annotation == "error":
            bad = len(self.found)
            more = f" (and {bad - 1} more bad records)" if bad > 1 else ""
            hint = "repair the file, or leave such records out with on_bad_annotation=skip"
            looks = "".join(f"; {note}" for note in self.notes)
            raise AnnotationError(f"{self.file}: {self.found[0]}{more}: {hint}{looks}")
        for note in self.notes:
            log.warning("%s: %s", self.file, note)
        if self.found:
            log.warning("%s: left out %d bad records, first: %s", self.file, len(self.found), self.found[0])
        for sentence in self.found:
            log.debug("%s: left out %s", self.file, sentence)


def named(kind: RecordKind, record_id: object, position: int) -> str:
    """What a record is called in a message: by its id, where it has one."""
    try:
        return f"{kind} {shortened(checked_id({'id': record_id}))}"
    except ValueError:
        return f"{kind} at position {position}"


def checked(reasons: list[str], check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """What ``check`` returns; None if it finds something wrong, which is added to ``reasons``."""
    try:
        return check(*args, **kwargs)
    except ValueError as error:
        reasons.append(str(error))
        return None


def checked_id(record: Record, key: str = "id") -> Id:
    """Id under ``key``."""
    value = record.get(key)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError(f"has {key} {shortened(value)}: a whole number or text is needed")
    return value


def shortened(value: object) -> str:
    """What stands in the file, cut to what fits into a message."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write integers of thousands of digits
        return "of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}…"


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a number that floats can hold; true and false are none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def checked_side(record: Record, key: str) -> int:
    """Side of an image in pixels under ``key``."""
    value = record.get(key)
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(whole, bool) or not isinstance(whole, int) or not 1 <= whole <= MAX_IMAGE_SIDE:
        raise ValueError(f"has {key} {shortened(value)}: an integer from 1 to {MAX_IMAGE_SIDE} is needed")
    return whole


def checked_file_name(record: Record) -> str:
    """``file_name``, or what LVIS has instead of it: the last folder and the file of ``coco_url``."""
    name, url = record.get("file_name"), record.get("coco_url")
    if name is None and isinstance(url, str):
        name = "/".join(unquote(urlsplit(url).path).split("/")[-2:])
    if not isinstance(name, str) or not name:
        raise ValueError(f"has file_name {shortened(name)}: a path below the image folder is needed")
    if not name.isprintable() and UNUSABLE.search(name):
        raise ValueError(f"has file_name {shortened(name)}, with a control character")
    return name


def checked_box(record: Record, size: Size | None, max_overhang: float) -> Box:
    """``bbox`` ``(x, y, width, height)`` in pixels, as it stands in a record.

    Args:
        record: The annotation.
        size: (height, width) of its image; None if it is not known, and nothing is held against the box then.
        max_overhang: Share of a side of the image by which the box may reach over it.
    """
    given = record.get("bbox")
    if not isinstance(given, list) or len(given) != 4:
        raise ValueError(f"has bbox {shortened(given)}: [x, y, width, height] is needed")
    if not all(map(is_finite, given)):
        raise ValueError(f"has bbox {shortened(given)}: four finite numbers are needed")
    x, y, width, height = (float(value) for value in given)
    if width <= 0 or height <= 0:
        raise ValueError(f"has bbox {given} of zero area: width and height above 0 are needed")
    if size is not None:
        over = max(max(-x, x + width - size[1]) / size[1], max(-y, y + height - size[0]) / size[0])
        is_inside = min(x + width, size[1]) > max(x, 0) and min(y + height, size[0]) > max(y, 0)
        if not is_inside or over > max_overhang:
            by = f" by {100 * over:.3g} % of a side, max_overhang is {100 * max_overhang:g} %" if is_inside else ""
            raise ValueError(f"has bbox {given}, which lies outside its image of (height, width) = {list(size)}{by}")
    return x, y, width, height


def checked_area(record: Record) -> float:
    """``area`` in pixels, which may be missing: NaN then."""
    area = record.get("area")
    if area is None:
        return math.nan
    if not (is_finite(area) and area >= 0):
        raise ValueError(f"has area {shortened(area)}: a number of pixels >= 0 is needed")
    return float(area)


def checked_crowd(record: Record) -> bool:
    """``iscrowd``, which may be missing: 0 or 1."""
    if record.get("iscrowd") not in (None, 0, 1):
        raise ValueError(f"has iscrowd {shortened(record['iscrowd'])}: 0 or 1 is needed")
    return bool(record.get("iscrowd"))
