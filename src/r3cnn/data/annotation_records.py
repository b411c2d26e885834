"""The annotation records of a COCO file: the sound ones many at once, all others one by one.

What is certainly sound is found with array operations on a few thousand records at a time. Everything else (run
lengths, bad records, fields of unusual types) goes through the checks of single records, which alone know the reason.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain, repeat
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from r3cnn.data.checks import (
    Box,
    Problems,
    Record,
    checked,
    checked_area,
    checked_box,
    checked_crowd,
    checked_id,
)
from r3cnn.data.coco_file import Entry, decoded, parsed
from r3cnn.data.image_records import Images
from r3cnn.data.packed_segments import Outlines, PackedSegments, Polygons, pack_polygons
from r3cnn.data.segmentation import MIN_NUMBERS, encode, reach_of
from r3cnn.names import Id, Size

CHUNK = 256
"""Records at a time: a few MB; one with a field of an unusual type takes all of its chunk to the slow way."""

REPEATED = "has the id of another annotation: one of its own is needed"


class _RunLengths(msgspec.Struct, gc=False):
    counts: msgspec.Raw


class _AnnotationRecord(msgspec.Struct, gc=False):
    id: int | Annotated[str, msgspec.Meta(min_length=1)]
    image_id: int | float | str
    category_id: int | float | str
    bbox: tuple[float, float, float, float]
    segmentation: list[list[float]] | _RunLengths
    area: float | None = None
    iscrowd: bool | int | None = None


_DECODER = msgspec.json.Decoder(list[_AnnotationRecord])
_FIELDS = attrgetter("id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd")


@dataclass(frozen=True)
class Known:
    """What annotations are checked against.

    Attributes:
        images: The images that they may belong to.
        labels: Label of each category id.
        max_overhang: Share of a side of its image by which a box may reach over it.
    """

    images: Images
    labels: Mapping[Id, int]
    max_overhang: float

    def size(self, row: int) -> Size:
        """Size of an image in pixels."""
        height, width = self.images.sizes[row].tolist()
        return height, width


@dataclass(frozen=True)
class Columns:
    """A sound annotations, one row each.

    Attributes:
        positions: (A,) int64, in the file's list.
        images: (A,) int64 rows of their images.
        labels: (A,) int64.
        boxes: (A, 4) float64 ``(x, y, width, height)`` in pixels, as in the file.
        areas: (A,) float64 pixels, as in the file; NaN where it says nothing.
        is_crowd: (A,) bool.
    """

    positions: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    areas: npt.NDArray[np.float64]
    is_crowd: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Sequence[_Row]) -> Columns:
        """Columns of single rows."""
        return cls(
            np.array([row.position for row in rows], dtype=np.int64),
            np.array([row.image for row in rows], dtype=np.int64),
            np.array([row.label for row in rows], dtype=np.int64),
            np.array([row.box for row in rows], dtype=np.float64).reshape(-1, 4),
            np.array([row.area for row in rows], dtype=np.float64),
            np.array([row.is_crowd for row in rows], dtype=np.bool_),
        )

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """Rows of all parts, at least one, behind one another."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def rows(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Columns:
        """The rows ``chosen``, in that order."""
        return Columns(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class _Row:
    """One sound annotation, see `Columns`, with its compressed run lengths."""

    position: int
    image: int
    label: int
    box: Box
    area: float
    is_crowd: bool
    segment: bytes


@dataclass(frozen=True)
class _SoundChunk:
    """The certainly sound rows of a chunk, the polygons of each, and their ids."""

    columns: Columns
    outlines: Outlines
    ids: Sequence[Id]


@dataclass(frozen=True)
class Sorted:
    """Annotation records after the first look.

    Attributes:
        sound: What needs no second look.
        doubtful: Position and record of all else.
    """

    sound: list[_SoundChunk]
    doubtful: list[tuple[int, Record]]

    @property
    def num_sound(self) -> int:
        """How many records need no second look."""
        return sum(len(one.ids) for one in self.sound)


def sort_records(file: Path, entries: Sequence[Entry], known: Known) -> Sorted:
    """Takes a first look at all records; the text of the file is not needed any more afterwards."""
    found = Sorted([], [])
    for start in range(0, len(entries), CHUNK):
        chunk = entries[start : start + CHUNK]
        sound, left = _certainly_sound(chunk, start, known)
        found.sound.extend(sound)
        found.doubtful.extend((start + place, parsed(file, chunk[place])) for place in left)
    return found


def check_records(
    found: Sorted, known: Known, problems: Problems
) -> tuple[Columns, npt.NDArray[np.int64], PackedSegments]:
    """Checks what is doubtful; bad records are left out, and all that is wrong with them is noted, in the file's order.

    Returns:
        A rows, in no order; (A,) int64, where the segmentation of each is; and these.
    """
    repeated = _repeated_ids(found)
    rows: list[_Row] = []
    strays: list[tuple[int, Box]] = []
    bad = {position: (record_id, [REPEATED]) for position, record_id in repeated.items()}
    for position, record in found.doubtful:
        reasons: list[str] = []
        row = _check(position, record, known, reasons)
        if position in repeated:
            reasons = [REPEATED, *reasons]
        if row is None or reasons:
            bad[position] = (record.get("id"), reasons)
            image = checked([], _row_of_image, record, known.images.row_of)
            box = checked([], checked_box, record, None, math.inf)
            strays += [] if image is None or box is None else [(image, box)]
        else:
            rows.append(row)
    for position, (record_id, reasons) in sorted(bad.items()):
        problems.add("annotation", position, record_id, reasons)
    segments = pack_polygons([one.outlines for one in found.sound]).with_runs([row.segment for row in rows])
    columns = Columns.joined([*(one.columns for one in found.sound), Columns.of(rows)])
    kept = np.flatnonzero(~np.isin(columns.positions, np.array(list(repeated), dtype=np.int64)))
    problems.notes += _suspicions(columns, strays, known)
    have_mask = [record.get("segmentation") not in (None, [], [[]], {}) for _, record in found.doubtful]
    if have_mask and not any(have_mask) and not found.num_sound:
        problems.notes.append(
            "no annotation has a mask: an export of boxes alone? export polygons or run lengths (RLE)"
        )
    return columns.rows(kept), kept, segments


def _repeated_ids(found: Sorted) -> dict[int, object]:
    """Positions of the records whose id an earlier one has, and these ids."""
    singles = [(position, checked([], checked_id, record)) for position, record in found.doubtful]
    singles = [(position, one) for position, one in singles if one is not None]  # else noted when it is checked
    ids = [*chain.from_iterable(one.ids for one in found.sound), *(one for _, one in singles)]
    positions = np.array(
        [*chain.from_iterable(one.columns.positions.tolist() for one in found.sound), *(place for place, _ in singles)]
    )
    if len(set(ids)) == len(ids):
        return {}
    seen: set[object] = set()
    repeated: dict[int, object] = {}
    for place in np.argsort(positions).tolist():
        if ids[place] in seen:
            repeated[int(positions[place])] = ids[place]
        seen.add(ids[place])
    return repeated


def _check(position: int, record: Record, known: Known, reasons: list[str]) -> _Row | None:
    """Row of a record; None, and all that is wrong with it in ``reasons``, if it is bad."""
    checked(reasons, checked_id, record)
    image = checked(reasons, _row_of_image, record, known.images.row_of)
    label = checked(reasons, _label_of, record, known.labels)
    area = checked(reasons, checked_area, record)
    is_crowd = checked(reasons, checked_crowd, record)
    size = None if image is None else known.size(image)
    segment, no_mask = encode(record.get("segmentation"), size)
    if record.get("bbox") is None and segment and size is not None:
        record = {**record, "bbox": coco_mask.toBbox({"size": list(size), "counts": segment}).tolist()}
    box = checked(reasons, checked_box, record, size, known.max_overhang)
    reasons += no_mask
    if reasons or image is None or label is None or area is None or is_crowd is None or box is None:
        return None
    return _Row(position, image, label, box, area, is_crowd, segment)


def _row_of_image(record: Record, row_of: Mapping[Id, int]) -> int:
    image_id = checked_id(record, "image_id")
    row = row_of.get(image_id)
    if row is None:
        raise ValueError(
            f"belongs to image_id {image_id!r}, which is not in the file (or is bad itself)"
            + _other_kind(image_id, row_of)
        )
    return row


def _label_of(record: Record, labels: Mapping[Id, int]) -> int:
    category = checked_id(record, "category_id")
    label = labels.get(category)
    if label is None:
        known = ", ".join(map(repr, sorted(labels)))
        needed = f"one of the file's, [{known[:200]}], is needed"
        raise ValueError(f"has unknown category_id {category!r}: {needed}{_other_kind(category, labels)}")
    return label


def _other_kind(given: Id, known: Collection[Id]) -> str:
    """A hint for what is the text of a number or the number of a text."""
    other: Id = str(given) if isinstance(given, int) else int(given) if given.isdecimal() else given
    return f"; {other!r} is, but numbers and text are different ids" if other != given and other in known else ""


def _certainly_sound(entries: Sequence[Entry], start: int, known: Known) -> tuple[list[_SoundChunk], list[int]]:
    """What needs no second look, and the places in ``entries`` of all else."""
    records = decoded(entries, _DECODER)
    if records is None:
        return [], list(range(len(entries)))
    count, columns = len(records), zip(*map(_FIELDS, records), strict=True)
    ids, image_ids, category_ids, bboxes, segmentations, areas, crowds = columns
    image = np.fromiter(map(known.images.row_of.get, image_ids, repeat(-1)), np.int64, count)
    label = np.fromiter(map(known.labels.get, category_ids, repeat(-1)), np.int64, count)
    area, crowd = np.array(areas, dtype=np.float64), np.array([one or 0 for one in crowds])
    sizes = known.images.sizes[image] if len(known.images.ids) else np.ones((count, 2), dtype=np.int64)
    boxes = np.fromiter(chain.from_iterable(bboxes), np.float64, 4 * count).reshape(-1, 4)
    outlines = Polygons.of([one if isinstance(one, list) else () for one in segmentations])
    is_sound = (image >= 0) & (label >= 0) & (np.isnan(area) | ((area >= 0) & (area < math.inf))) & (crowd <= 1)
    is_sound &= (crowd >= 0) & _are_inside(boxes, sizes, known.max_overhang) & _are_sound(outlines, sizes)
    rows = Columns(np.arange(start, start + count), image, label, boxes, area, crowd.astype(np.bool_))
    places = np.flatnonzero(is_sound)
    sound = _SoundChunk(rows.rows(places), outlines.chosen(is_sound), [ids[place] for place in places.tolist()])
    return [sound], np.flatnonzero(~is_sound).tolist()


def corners_of(boxes: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(A, 4) float64 ``(x1, y1, x2, y2)``, clipped to the images, from ``(x, y, width, height)`` and (A, 2) sizes."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return np.concatenate([np.maximum(low, 0.0), np.minimum(high, sizes[:, ::-1].astype(np.float64))], axis=1)


def _are_inside(
    boxes: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64], max_overhang: float
) -> npt.NDArray[np.bool_]:
    """What ``checked_box`` does, to many: (A,) whether the box is sound."""
    low, high, limits = boxes[:, :2], boxes[:, :2] + boxes[:, 2:], sizes[:, ::-1].astype(np.float64)
    overhang = (np.maximum(-low, high - limits) / limits).max(axis=1)
    is_filled = (boxes[:, 2:] > 0) & (np.minimum(high, limits) > np.maximum(low, 0.0))
    return is_filled.all(axis=1) & (overhang <= max_overhang)


def _are_sound(objects: Polygons, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(P,) whether each object has polygons, and ``encode`` would take them all."""
    is_sound = (objects.lengths >= MIN_NUMBERS) & (objects.lengths % 2 == 0)
    owners = objects.owners
    filled = np.flatnonzero(objects.lengths)
    if len(filled):
        starts = (np.cumsum(objects.lengths) - objects.lengths)[filled]
        low, high = reach_of(sizes[owners[filled]].max(axis=1))
        is_sound[filled] &= np.minimum.reduceat(objects.points, starts) >= low
        is_sound[filled] &= np.maximum.reduceat(objects.points, starts) <= high
    num_bad = np.bincount(owners[~is_sound], minlength=len(objects.counts))
    return (objects.counts > 0) & (num_bad == 0)


def _suspicions(columns: Columns, strays: Sequence[tuple[int, Box]], known: Known) -> list[str]:
    """What all boxes together, those of bad records too, look like if that is not COCO's ``[x, y, width, height]``."""
    images = np.concatenate([columns.images, np.array([image for image, _ in strays], dtype=np.int64)])
    boxes = np.concatenate([columns.boxes, np.array([box for _, box in strays], dtype=np.float64).reshape(-1, 4)])
    if not len(boxes):
        return []
    needed = "COCO's bbox is [x, y, width, height] in pixels"
    ends = boxes[:, :2] + boxes[:, 2:]
    is_normalised = (ends <= 1).all(axis=1)
    if 2 * is_normalised.sum() > len(boxes):
        return [f"{is_normalised.sum()} of {len(boxes)} boxes lie between 0 and 1: normalised coordinates? {needed}"]
    limits = known.images.sizes[images, ::-1]
    is_over = (ends > limits + 1).any(axis=1)
    are_corners = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & (boxes[:, 2:] <= limits + 1).all(axis=1)
    if 10 * is_over.sum() >= len(boxes) and 10 * are_corners.sum() >= 9 * len(boxes):
        found = f"{is_over.sum()} of {len(boxes)} boxes reach over their images, but would not as corners"
        return [f"{found}: [x1, y1, x2, y2]? {needed}"]
    return []
