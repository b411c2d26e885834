"""A COCO annotation file, read and checked once at set-up and held in a few packed arrays.

Workers then share plain buffers instead of millions of Python objects, whose reference counts would copy the memory
page by page into every worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r3cnn.data.annotation_records import check_records, sort_records
from r3cnn.data.checks import AnnotationError, Problems, Rejected
from r3cnn.data.coco_file import categories_of, collector_paused, entries_of, read_bytes
from r3cnn.data.image_records import read_images
from r3cnn.data.packed_segments import PackedSegments
from r3cnn.structures import Size

LONGEST_LIST = 800  # characters of names in a message


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
        image_ids: (I,) int64.
        sizes: (I, 2) int64 (height, width) in pixels.
        file_names: (I,) strings, below the image folder.
        starts: (I + 1,) int64; the objects of image i are ``starts[i]`` to ``starts[i + 1]``.
        boxes: (A, 4) float32 ``(x1, y1, x2, y2)`` in pixels, inside the image.
        labels: (A,) int64 in [0, K).
        rows: (A,) int64; where the segmentation of each object is.
        segments: The segmentations, in no order.
        crowd_starts: (I + 1,) int64; the crowds of image i are ``crowd_starts[i]`` to ``crowd_starts[i + 1]``.
        crowds: (C, 4) float32 boxes like those of the objects.
        category_ids: The file's id of each of the K classes, in label order; a free one for a class that it lacks.
        rejected: The bad records that were left out.
    """

    file: Path
    image_ids: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    file_names: npt.NDArray[np.str_]
    starts: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    segments: PackedSegments
    crowd_starts: npt.NDArray[np.int64]
    crowds: npt.NDArray[np.float32]
    category_ids: tuple[int, ...]
    rejected: Rejected

    def __len__(self) -> int:
        return len(self.image_ids)

    def size(self, index: int) -> Size:
        """Size of image ``index`` in pixels."""
        height, width = self.sizes[index].tolist()
        return height, width

    def objects(self, index: int) -> Objects:
        """Objects of image ``index``."""
        first, last = self.starts[index], self.starts[index + 1]
        size = self.size(index)
        segments = tuple(self.segments.encoded(row, size) for row in self.rows[first:last].tolist())
        crowds = self.crowds[self.crowd_starts[index] : self.crowd_starts[index + 1]]
        return Objects(self.boxes[first:last], self.labels[first:last], segments, crowds)


@collector_paused()
def read_index(file: Path, classes: Sequence[str], *, may_lack_classes: bool) -> tuple[Annotations, Problems]:
    """Reads, checks and packs a COCO file; returns what is sound of it, and what is not.

    Crowds are kept apart from the objects. Left out, as in the authors' code, is what has a side below 1 px or an
    ``area`` of 0, which is too small to learn from. Evaluation, which does use it, reads the file itself, without the
    ``rejected`` records.

    Args:
        file: COCO JSON with ``images``, ``annotations`` and ``categories``.
        classes: Names of the K categories in label order.
        may_lack_classes: Whether the file's categories may be a part of ``classes``, as is enough to evaluate on.

    Raises:
        AnnotationError: For a file that is no COCO file, or with other categories than ``classes``.
    """
    entries = entries_of(file, read_bytes(file))
    id_of = categories_of(file, entries.categories)
    _check_classes(file, id_of, classes, may_lack_classes=may_lack_classes)
    labels = {id_of[name]: label for label, name in enumerate(classes) if name in id_of}
    problems = Problems(file)
    images = read_images(file, entries.images, problems)
    found = sort_records(file, entries.annotations, images, labels)
    del entries  # the text of the file, most of the memory
    columns, rows, segments = check_records(found, images, labels, problems)
    del found
    order = np.lexsort((columns.positions, columns.images))
    columns, rows = columns.rows(order), rows[order]
    is_object, is_crowd = ~columns.is_tiny & ~columns.is_crowd, ~columns.is_tiny & columns.is_crowd
    annotations = Annotations(
        file=file,
        image_ids=images.ids,
        sizes=images.sizes,
        file_names=np.array(images.file_names, dtype=np.str_),
        starts=_starts(columns.images[is_object], len(images.ids)),
        boxes=columns.boxes[is_object],
        labels=columns.labels[is_object],
        rows=rows[is_object],
        segments=segments,
        crowd_starts=_starts(columns.images[is_crowd], len(images.ids)),
        crowds=columns.boxes[is_crowd],
        category_ids=_ids_of_labels(id_of, classes),
        rejected=problems.rejected,
    )
    return annotations, problems


def _starts(images: npt.NDArray[np.int64], num_images: int) -> npt.NDArray[np.int64]:
    """(I + 1,) where each image's rows start, from the (A,) images of sorted rows."""
    return np.searchsorted(images, np.arange(num_images + 1)).astype(np.int64)


def classes_of(file: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and ids of a file's categories, in the order of their ids.

    Raises:
        AnnotationError: For a file that is no COCO file, or categories without a unique name and id.
    """
    id_of = categories_of(file, entries_of(file, read_bytes(file)).categories)
    return tuple(id_of), tuple(id_of.values())


def _check_classes(file: Path, id_of: Mapping[str, int], classes: Sequence[str], *, may_lack_classes: bool) -> None:
    missing = [name for name in classes if name not in id_of]
    unknown = [name for name in id_of if name not in classes]
    if unknown or (missing and not may_lack_classes):
        got = f"missing in the file: {_listed(missing)}, unknown in it: {_listed(unknown)}"
        raise AnnotationError(f"{file}: its categories are not the {len(classes)} classes of the data config: {got}")


def _listed(names: Sequence[str]) -> str:
    text = repr([*names]) if names else "none"
    return text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST]}…"


def _ids_of_labels(id_of: Mapping[str, int], classes: Sequence[str]) -> tuple[int, ...]:
    """The file's id of each class; a class that it lacks gets a free one, above all of the file's."""
    free = count(max(id_of.values()) + 1)
    return tuple(id_of[name] if name in id_of else next(free) for name in classes)
