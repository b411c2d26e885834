"""A COCO annotation file, read and checked once at set-up and held in a few packed arrays.

Workers then share plain buffers instead of millions of Python objects, whose reference counts would copy the memory
page by page into every worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from r3cnn.data.annotation_records import Columns, Known, check_records, corners_of, sort_records
from r3cnn.data.checks import AnnotationError, Problems, Rejected
from r3cnn.data.coco_file import (
    Entries,
    categories_alone,
    categories_of,
    collector_paused,
    entries_of,
    read_text,
    root_of,
    uses_of,
)
from r3cnn.data.image_records import Images, read_images
from r3cnn.data.packed_segments import PackedSegments
from r3cnn.names import Id, Size

LONGEST_LIST = 800  # characters of names in a message
MIN_BOX_SIDE = 1.0
"""Boxes with a shorter side, in pixels of the image file, are too small to learn from."""


@dataclass(frozen=True)
class Objects:
    """The G objects of one image, in pixels of the image file.

    Attributes:
        boxes: (G, 4) float32 ``(x1, y1, x2, y2)``, inside the image.
        labels: (G,) int64 in [0, K).
        segments: Compressed run lengths of each object.
        crowds: (C, 4) float32 boxes of the crowds that are not trained as background; none unless asked for.
    """

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    segments: tuple[bytes, ...]
    crowds: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Annotations:
    """I images, their A objects and, apart from these, their C crowds, in the order of the file.

    Attributes:
        file: The annotation file.
        image_ids: (I,) int64; those of the file, or 1 to I where it has others than numbers of 64 bits.
        file_ids: The file's id of an image where that is another.
        sizes: (I, 2) int64 (height, width) in pixels.
        file_names: (I,) strings, as in the file.
        starts: (I + 1,) int64; the objects of image i are ``starts[i]`` to ``starts[i + 1]``.
        boxes: (A, 4) float32 ``(x1, y1, x2, y2)`` in pixels, inside the image.
        labels: (A,) int64 in [0, K).
        rows: (A,) int64; where the segmentation of each object is.
        segments: The segmentations, in no order.
        crowd_starts: (I + 1,) int64; the crowds of image i are ``crowd_starts[i]`` to ``crowd_starts[i + 1]``.
        crowds: (C, 4) float32 boxes like those of the objects.
        category_ids: The file's id of each of the K classes, in label order; a free one for a class that it lacks.
        rejected: The bad records that were left out.
        left_out: How many sound annotations are no object to learn from, by the reason.
        notes: What looks wrong with the whole file.
    """

    file: Path
    image_ids: npt.NDArray[np.int64]
    file_ids: Mapping[int, Id]
    sizes: npt.NDArray[np.int64]
    file_names: npt.NDArray[np.str_]
    starts: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    segments: PackedSegments
    crowd_starts: npt.NDArray[np.int64]
    crowds: npt.NDArray[np.float32]
    category_ids: tuple[Id, ...]
    rejected: Rejected
    left_out: Mapping[str, int]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_ids)

    def size(self, index: int) -> Size:
        """Size of image ``index`` in pixels."""
        height, width = self.sizes[index].tolist()
        return height, width

    @property
    def summary(self) -> str:
        """How many objects there are to learn from, and why not more, in one line."""
        left_out = ", ".join(f"{number} {reason}" for reason, number in self.left_out.items())
        return f"{len(self.labels)} objects in {len(self)} images; left out: {left_out or 'none'}"

    def objects(self, index: int) -> Objects:
        """Objects of image ``index``."""
        first, last = self.starts[index], self.starts[index + 1]
        size = self.size(index)
        segments = tuple(self.segments.encoded(row, size) for row in self.rows[first:last].tolist())
        crowds = self.crowds[self.crowd_starts[index] : self.crowd_starts[index + 1]]
        return Objects(self.boxes[first:last], self.labels[first:last], segments, crowds)


@dataclass(frozen=True)
class CocoRecords:
    """All sound records of a COCO file.

    Attributes:
        images: I images.
        columns: A annotations in the order of the file.
        rows: (A,) int64; where the segmentation of each is.
        segments: The segmentations, in no order.
        problems: What is wrong with the others.
    """

    images: Images
    columns: Columns
    rows: npt.NDArray[np.int64]
    segments: PackedSegments
    problems: Problems

    def encoded(self, row: int) -> bytes:
        """Compressed run lengths of an annotation."""
        height, width = self.images.sizes[self.columns.images[row]].tolist()
        return self.segments.encoded(int(self.rows[row]), (height, width))


@collector_paused()
def read_all(file: Path, max_overhang: float = math.inf) -> tuple[dict[str, Id], CocoRecords]:
    """Ids of the categories of a COCO file by their names, in the order of the labels, and its records.

    Raises:
        AnnotationError: For a file that is no COCO file.
    """
    entries = entries_of(file, read_text(file))
    id_of = categories_of(file, entries)
    labels = {category: label for label, category in enumerate(id_of.values())}
    return id_of, _checked(file, entries, labels, max_overhang, Problems(file))


def _checked(
    file: Path, entries: Entries, labels: Mapping[Id, int], max_overhang: float, problems: Problems
) -> CocoRecords:
    images = read_images(file, entries.images, problems)
    known = Known(images, labels, max_overhang)
    found = sort_records(file, entries.annotations, known)
    entries.clear()  # the text of the file, most of the memory
    columns, rows, segments = check_records(found, known, problems)
    order = np.argsort(columns.positions)
    return CocoRecords(images, columns.rows(order), rows[order], segments, problems)


@collector_paused()
def read_index(
    file: Path, classes: Sequence[str], *, may_lack_classes: bool, max_overhang: float
) -> tuple[Annotations, Problems]:
    """Reads, checks and packs a COCO file; returns what is sound of it, and what is not.

    Crowds are kept apart from the objects. Left out, as in the authors' code, is what has a side below 1 px; unlike
    there an ``area`` of 0 counts only where the mask has no pixel either. Evaluation uses all sound records.

    Args:
        file: COCO JSON with ``images``, ``annotations`` and ``categories``.
        classes: Names of the K categories in label order.
        may_lack_classes: Whether the file's categories may be a part of ``classes``, as is enough to evaluate on.
        max_overhang: Share of a side of its image by which a box may reach over it, where it is clipped.

    Raises:
        AnnotationError: For a file that is no COCO file, or with other categories than ``classes``.
    """
    entries = entries_of(file, read_text(file))
    id_of = categories_of(file, entries)
    problems = Problems(file)
    _check_classes(file, entries, id_of, classes, problems, may_lack_classes=may_lack_classes)
    labels = {id_of[name]: label for label, name in enumerate(classes) if name in id_of}
    found = _checked(file, entries, labels, max_overhang, problems)
    images, columns = found.images, found.columns
    order = np.argsort(columns.images, kind="stable")
    boxes = corners_of(columns.boxes, images.sizes[columns.images])
    is_small = np.minimum(*(boxes[:, 2:] - boxes[:, :2]).T) < MIN_BOX_SIDE
    has_no_area = np.zeros(len(order), dtype=np.bool_)
    for row in np.flatnonzero((columns.areas == 0) & ~is_small).tolist():
        size = images.sizes[columns.images[row]].tolist()
        has_no_area[row] = not coco_mask.area({"size": size, "counts": found.encoded(row)})
    is_tiny, is_crowd = (is_small | has_no_area)[order], columns.is_crowd[order]
    objects, crowds = order[~is_tiny & ~is_crowd], order[~is_tiny & is_crowd]
    left_out = {
        "crowds (iscrowd 1)": int(columns.is_crowd.sum()),
        f"with a box side below {MIN_BOX_SIDE:g} px": int((is_small & ~columns.is_crowd).sum()),
        "with an area of 0 and a mask without a pixel": int((has_no_area & ~columns.is_crowd).sum()),
    }
    annotations = Annotations(
        file=file,
        image_ids=images.ids,
        file_ids=images.file_ids,
        sizes=images.sizes,
        file_names=np.array(images.file_names, dtype=np.str_),
        starts=_starts(columns.images[objects], len(images.ids)),
        boxes=boxes[objects].astype(np.float32),
        labels=columns.labels[objects],
        rows=found.rows[objects],
        segments=found.segments,
        crowd_starts=_starts(columns.images[crowds], len(images.ids)),
        crowds=boxes[crowds].astype(np.float32),
        category_ids=ids_of_labels(id_of, classes),
        rejected=problems.rejected,
        left_out={reason: number for reason, number in left_out.items() if number},
        notes=tuple(problems.notes),
    )
    return annotations, problems


def _starts(images: npt.NDArray[np.int64], num_images: int) -> npt.NDArray[np.int64]:
    """(I + 1,) where each image's rows start, from the (A,) images of sorted rows."""
    return np.searchsorted(images, np.arange(num_images + 1)).astype(np.int64)


def classes_of(file: Path) -> tuple[str, ...]:
    """Names of a file's categories in the order of their ids; Roboflow's root class is none unless it is used.

    Raises:
        AnnotationError: For a file that is no COCO file, or categories without a unique name and id.
    """
    entries = categories_alone(file) or entries_of(file, read_text(file))
    id_of, root = categories_of(file, entries), root_of(entries)
    if root in id_of and len(id_of) > 1 and not uses_of(file, entries)[id_of[root]]:
        del id_of[root]
    return tuple(id_of)


def _check_classes(
    file: Path,
    entries: Entries,
    id_of: dict[str, Id],
    classes: Sequence[str],
    problems: Problems,
    *,
    may_lack_classes: bool,
) -> None:
    """Refuses other classes than those of the file; such as no annotation has are only noted."""
    missing = [name for name in classes if name not in id_of]
    unknown = [name for name in id_of if name not in classes]
    uses = uses_of(file, entries) if unknown else {}
    if any(uses.get(id_of[name]) for name in unknown) or (missing and not may_lack_classes):
        used = [f"{name!r} ({uses.get(id_of[name], 0)} annotations)" for name in unknown]
        got = f"missing in the file: {_listed([*map(repr, missing)])}, unknown in it: {_listed(used)}"
        raise AnnotationError(f"{file}: its categories are not the {len(classes)} classes of the data config: {got}")
    if len(entries.categories) > len(id_of):
        problems.notes.append(f"{len(entries.categories) - len(id_of)} repeated categories without annotation ignored")
    if unknown:
        ignored = _listed([*map(repr, unknown)])
        problems.notes.append(f"categories that are none of the classes and have no annotation ignored: {ignored}")


def _listed(names: Sequence[str]) -> str:
    text = f"[{', '.join(names)}]" if names else "none"
    return text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST]}…"


def ids_of_labels(id_of: Mapping[str, Id], classes: Sequence[str]) -> tuple[Id, ...]:
    """The file's id of each class; a class that it lacks gets a free one, above all of the file's."""
    last = max(id_of.values())
    free: Iterator[Id] = (f"{last}{number}" for number in count()) if isinstance(last, str) else count(last + 1)
    return tuple(id_of[name] if name in id_of else next(free) for name in classes)
