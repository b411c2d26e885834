"""The annotation records of a COCO file: the sound ones many at once, all others one by one.

What is certainly sound is found with array operations on a few thousand records at a time. Everything else (run
lengths, bad records, fields of unusual types) goes through the checks of single records, which alone know the reason.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from r3cnn.data.checks import (
    MAX_ID,
    MAX_OVERHANG,
    Problems,
    Record,
    check_area,
    check_crowd,
    checked_box,
    checked_id,
)
from r3cnn.data.coco_file import Entry, decoded, parsed
from r3cnn.data.columns import Columns, Row
from r3cnn.data.image_records import Images
from r3cnn.data.packed_segments import Outlines, PackedSegments, Polygons, pack_polygons
from r3cnn.data.record_problems import annotation_problems, label_of, row_of_image
from r3cnn.data.segmentation import MIN_NUMBERS, encode, reach_of

CHUNK = 256
"""Records at a time: a few MB; one with a field of an unusual type takes all of its chunk to the slow way."""

REPEATED = "has the id of another annotation: one of its own is needed"

MIN_BOX_SIDE = 1.0
"""Boxes with a shorter side, in pixels of the image file, are too small to learn from."""


class _RunLengths(msgspec.Struct, gc=False):
    counts: msgspec.Raw


_Id = Annotated[int, msgspec.Meta(ge=-MAX_ID, le=MAX_ID)]


class _AnnotationRecord(msgspec.Struct, gc=False):
    id: _Id
    image_id: _Id
    category_id: _Id
    bbox: tuple[float, float, float, float]
    segmentation: list[list[float]] | _RunLengths
    area: float = math.inf
    iscrowd: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0


_DECODER = msgspec.json.Decoder(list[_AnnotationRecord])
_FIELDS = attrgetter("id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd")


@dataclass(frozen=True)
class SoundChunk:
    """The certainly sound rows of a chunk.

    Attributes:
        columns: S rows.
        outlines: Polygons of each.
        ids: (S,) int64 annotation ids.
    """

    columns: Columns
    outlines: Outlines
    ids: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sorted:
    """Annotation records after the first look.

    Attributes:
        sound: What needs no second look.
        doubtful: Position and record of all else.
    """

    sound: list[SoundChunk]
    doubtful: list[tuple[int, Record]]


def sort_records(file: Path, entries: Sequence[Entry], images: Images, labels: Mapping[int, int]) -> Sorted:
    """Takes a first look at all records; the text of the file is not needed any more afterwards.

    Args:
        file: Where they are from.
        entries: The records.
        images: The images that they may belong to.
        labels: Label of each category id.
    """
    found = Sorted([], [])
    for start in range(0, len(entries), CHUNK):
        chunk = entries[start : start + CHUNK]
        sound, left = _certainly_sound(chunk, start, images, labels)
        found.sound.extend(sound)
        found.doubtful.extend((start + place, parsed(file, chunk[place])) for place in left)
    return found


def check_records(
    found: Sorted, images: Images, labels: Mapping[int, int], problems: Problems
) -> tuple[Columns, npt.NDArray[np.int64], PackedSegments]:
    """Checks what is doubtful; bad records are left out, and all that is wrong with them is noted, in the file's order.

    Returns:
        A rows, in no order; (A,) int64, where the segmentation of each is; and these.
    """
    repeated = _repeated_ids(found)
    rows, bad = _check_one_by_one(found.doubtful, images, labels, repeated)
    in_sound = {position: (record_id, [REPEATED]) for position, record_id in repeated.items() if position not in bad}
    for position, (record_id, reasons) in sorted((in_sound | bad).items()):
        problems.add("annotation", position, record_id, reasons)
    segments = pack_polygons([one.outlines for one in found.sound]).with_runs([row.segment for row in rows])
    columns = Columns.joined([*(one.columns for one in found.sound), Columns.of(rows)])
    kept = np.flatnonzero(~np.isin(columns.positions, np.array(list(repeated), dtype=np.int64)))
    return columns.rows(kept), kept, segments


def _repeated_ids(found: Sorted) -> dict[int, int]:
    """Positions of the records whose id an earlier one has, and these ids."""
    ids: dict[int, int] = {}
    for position, record in found.doubtful:
        with suppress(ValueError):  # noted when the record is checked
            ids[position] = checked_id(record)
    all_ids = np.concatenate([*(one.ids for one in found.sound), np.array(list(ids.values()), dtype=np.int64)])
    positions = np.concatenate([*(one.columns.positions for one in found.sound), np.array(list(ids), dtype=np.int64)])
    order = np.lexsort((positions, all_ids))
    is_repeat = np.zeros(len(order), dtype=np.bool_)
    is_repeat[1:] = all_ids[order][1:] == all_ids[order][:-1]
    repeats = order[is_repeat]
    return dict(zip(positions[repeats].tolist(), all_ids[repeats].tolist(), strict=True))


def _check_one_by_one(
    records: Sequence[tuple[int, Record]], images: Images, labels: Mapping[int, int], repeated: Collection[int]
) -> tuple[list[Row], dict[int, tuple[object, list[str]]]]:
    """Rows of the sound records; id and problems of each bad one by its position."""
    rows: list[Row] = []
    bad: dict[int, tuple[object, list[str]]] = {}
    for position, record in records:
        reasons = [REPEATED] if position in repeated else []
        try:
            row = _check(position, record, images, labels)
        except ValueError as error:
            reasons += _all_reasons(record, images, labels) or [str(error)]
        if reasons:
            bad[position] = (record.get("id"), reasons)
        else:
            rows.append(row)
    return rows, bad


def _all_reasons(record: Record, images: Images, labels: Mapping[int, int]) -> list[str]:
    """What is wrong with a record that is known to be bad."""
    try:
        height, width = images.sizes[row_of_image(record, images.row_of)].tolist()
        size = (height, width)
    except ValueError:
        size = None
    return annotation_problems(record, images.row_of, labels, size)


def _check(position: int, record: Record, images: Images, labels: Mapping[int, int]) -> Row:
    checked_id(record)
    image, label = row_of_image(record, images.row_of), label_of(record, labels)
    check_area(record)
    check_crowd(record)
    height, width = images.sizes[image].tolist()
    segment = encode(record.get("segmentation"), (height, width))
    box = checked_box(record, (height, width))
    is_tiny = min(box[2] - box[0], box[3] - box[1]) < MIN_BOX_SIDE or record.get("area") == 0
    return Row(position, image, box, label, bool(record.get("iscrowd")), is_tiny, segment)


def _certainly_sound(
    entries: Sequence[Entry], start: int, images: Images, labels: Mapping[int, int]
) -> tuple[list[SoundChunk], list[int]]:
    """What needs no second look, and the places in ``entries`` of all else."""
    records = decoded(entries, _DECODER)
    if records is None:
        return [], list(range(len(entries)))
    count, columns = len(records), zip(*map(_FIELDS, records), strict=True)
    ids, image_ids, category_ids, bboxes, segmentations, areas, crowds = columns
    image = np.fromiter(map(images.row_of.get, image_ids, repeat(-1)), np.int64, count)
    label = np.fromiter(map(labels.get, category_ids, repeat(-1)), np.int64, count)
    area, crowd = np.array(areas, dtype=np.float64), np.array(crowds, dtype=np.bool_)
    sizes = images.sizes[image] if len(images.ids) else np.ones((count, 2), dtype=np.int64)
    boxes, is_sound = _boxes(np.fromiter(chain.from_iterable(bboxes), np.float64, 4 * count).reshape(-1, 4), sizes)
    outlines = Polygons.of([one if isinstance(one, list) else () for one in segmentations])
    is_sound &= (image >= 0) & (label >= 0) & (area >= 0) & _are_sound(outlines, sizes)
    is_tiny = (np.minimum(*(boxes[:, 2:] - boxes[:, :2]).T) < MIN_BOX_SIDE) | (area == 0)
    rows = Columns(np.arange(start, start + count), image, boxes.astype(np.float32), label, crowd, is_tiny)
    places = np.flatnonzero(is_sound)
    sound = SoundChunk(rows.rows(places), outlines.chosen(is_sound), np.array(ids, dtype=np.int64)[places])
    return [sound], np.flatnonzero(~is_sound).tolist()


def _boxes(
    given: npt.NDArray[np.float64], sizes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """What ``checked_box`` does, to many: (S, 4) clipped corners, and whether the box is sound."""
    low, high = given[:, :2], given[:, :2] + given[:, 2:]
    limits = sizes[:, ::-1].astype(np.float64)
    overhang = np.maximum(-low, high - limits).max(axis=1, initial=-np.inf)
    corners = np.concatenate([np.maximum(low, 0.0), np.minimum(high, limits)], axis=1)
    is_sound = (given[:, 2:] > 0).all(axis=1) & (overhang <= MAX_OVERHANG)
    return corners, is_sound & (corners[:, 2:] > corners[:, :2]).all(axis=1)


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
