"""A COCO annotation file, read and checked once at set-up and held in a few packed arrays.

Workers then share plain buffers instead of millions of Python objects, whose reference counts would copy the memory
page by page into every worker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r3cnn.data.checks import (
    AnnotationError,
    Box,
    OnBadAnnotation,
    Problems,
    Record,
    Rejected,
    check_area_and_crowd,
    checked_box,
    checked_file_name,
    checked_id,
    checked_size,
)
from r3cnn.data.coco_file import categories_of, load_content
from r3cnn.data.segmentation import encode
from r3cnn.structures import Size


@dataclass(frozen=True)
class Objects:
    """The G objects of one image, in pixels of the image file.

    Attributes:
        boxes: (G, 4) float32 ``(x1, y1, x2, y2)``, inside the image.
        labels: (G,) int64 in [0, K).
        segments: Compressed run lengths of each object.
    """

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    segments: tuple[bytes, ...]


@dataclass(frozen=True)
class Annotations:
    """I images and their A objects (no crowds), in the order of the file.

    Attributes:
        file: The annotation file.
        image_ids: (I,) int64.
        sizes: (I, 2) int64 (height, width) in pixels.
        file_names: (I,) strings, below the image folder.
        starts: (I + 1,) int64; the objects of image i are ``starts[i]`` to ``starts[i + 1]``.
        boxes: (A, 4) float32 ``(x1, y1, x2, y2)`` in pixels, inside the image.
        labels: (A,) int64 in [0, K).
        segments: (N,) uint8; run lengths of all objects one after the other.
        segment_starts: (A + 1,) int64.
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
    segments: npt.NDArray[np.uint8]
    segment_starts: npt.NDArray[np.int64]
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
        cuts = self.segment_starts[first : last + 1].tolist()
        segments = tuple(self.segments[a:b].tobytes() for a, b in pairwise(cuts))
        return Objects(self.boxes[first:last], self.labels[first:last], segments)


def read_annotations(
    file: Path,
    classes: Sequence[str],
    on_bad_annotation: OnBadAnnotation = "error",
    *,
    may_lack_classes: bool = False,
) -> Annotations:
    """Reads, checks and packs a COCO file.

    Crowds are left out, as in the authors' code. So are objects with a side below 1 px or an ``area`` of 0, which are
    too small to learn from. Evaluation, which does use both, reads the file itself, without the ``rejected`` records.

    Args:
        file: COCO JSON with ``images``, ``annotations`` and ``categories``.
        classes: Names of the K categories in label order.
        on_bad_annotation: ``error`` raises at the first look, ``skip`` leaves bad records out, counts and logs them.
        may_lack_classes: Whether the file's categories may be a part of ``classes``, as is enough to evaluate on.

    Raises:
        AnnotationError: For a file that is no COCO file, with other categories than ``classes``, or with a bad record.
    """
    content = load_content(file)
    id_of = categories_of(file, content)
    _check_classes(file, id_of, classes, may_lack_classes=may_lack_classes)
    labels = {id_of[name]: label for label, name in enumerate(classes) if name in id_of}
    problems = Problems(file)
    images = _read_images(content["images"], problems)
    objects = _read_objects(content["annotations"], images, labels, problems)
    problems.report(on_bad_annotation)
    return _pack(file, images, objects, _ids_of_labels(id_of, classes), rejected=problems.rejected)


def classes_of(file: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and ids of a file's categories, in the order of their ids.

    Raises:
        AnnotationError: For a file that is no COCO file, or categories without a unique name and id.
    """
    id_of = categories_of(file, load_content(file))
    return tuple(id_of), tuple(id_of.values())


def _check_classes(file: Path, id_of: Mapping[str, int], classes: Sequence[str], *, may_lack_classes: bool) -> None:
    missing = [name for name in classes if name not in id_of]
    unknown = [name for name in id_of if name not in classes]
    if unknown or (missing and not may_lack_classes):
        got = f"missing in the file: {missing or 'none'}, unknown in it: {unknown or 'none'}"
        raise AnnotationError(f"{file}: its categories are not the {len(classes)} classes of the data config: {got}")


def _ids_of_labels(id_of: Mapping[str, int], classes: Sequence[str]) -> tuple[int, ...]:
    """The file's id of each class; a class that it lacks gets a free one, above all of the file's."""
    free = count(max(id_of.values()) + 1)
    return tuple(id_of[name] if name in id_of else next(free) for name in classes)


@dataclass(frozen=True)
class _Image:
    file_name: str
    size: Size


@dataclass(frozen=True)
class _Object:
    box: Box
    label: int
    segment: bytes


def _read_images(records: Sequence[Record], problems: Problems) -> dict[int, _Image]:
    images: dict[int, _Image] = {}
    for position, record in enumerate(records):
        try:
            image_id = checked_id(record)
            if image_id in images:
                raise ValueError("has the id of another image")
            images[image_id] = _Image(checked_file_name(record), checked_size(record))
        except ValueError as error:
            problems.add("image", position, record.get("id"), str(error))
    return images


def _read_objects(
    records: Sequence[Record], images: dict[int, _Image], labels: dict[int, int], problems: Problems
) -> dict[int, list[_Object]]:
    objects: dict[int, list[_Object]] = defaultdict(list)
    seen: set[int] = set()
    for position, record in enumerate(records):
        try:
            annotation_id = checked_id(record)
            if annotation_id in seen:
                raise ValueError("has the id of another annotation")
            seen.add(annotation_id)
            found = _read_object(record, images, labels)
        except ValueError as error:
            problems.add("annotation", position, record.get("id"), str(error))
            continue
        is_tiny = min(found.box[2] - found.box[0], found.box[3] - found.box[1]) < 1 or record.get("area") == 0
        if not is_tiny and not record.get("iscrowd"):
            objects[checked_id(record, "image_id")].append(found)
    return objects


def _read_object(record: Record, images: dict[int, _Image], labels: dict[int, int]) -> _Object:
    image = images.get(checked_id(record, "image_id"))
    if image is None:
        raise ValueError(f"belongs to image {record['image_id']}, which is not in the file (or is bad itself)")
    label = labels.get(checked_id(record, "category_id"))
    if label is None:
        raise ValueError(f"has unknown category {record['category_id']}")
    check_area_and_crowd(record)
    return _Object(checked_box(record, image.size), label, encode(record.get("segmentation"), image.size))


def _pack(
    file: Path,
    images: dict[int, _Image],
    objects: dict[int, list[_Object]],
    category_ids: tuple[int, ...],
    *,
    rejected: Rejected,
) -> Annotations:
    ordered = [found for image_id in images for found in objects.get(image_id, [])]
    counts = [len(objects.get(image_id, [])) for image_id in images]
    lengths = [len(found.segment) for found in ordered]
    return Annotations(
        file=file,
        image_ids=np.array(list(images), dtype=np.int64),
        sizes=np.array([image.size for image in images.values()], dtype=np.int64).reshape(-1, 2),
        file_names=np.array([image.file_name for image in images.values()], dtype=np.str_),
        starts=np.cumsum([0, *counts], dtype=np.int64),
        boxes=np.array([found.box for found in ordered], dtype=np.float32).reshape(-1, 4),
        labels=np.array([found.label for found in ordered], dtype=np.int64),
        segments=np.frombuffer(b"".join(found.segment for found in ordered), dtype=np.uint8),
        segment_starts=np.cumsum([0, *lengths], dtype=np.int64),
        category_ids=category_ids,
        rejected=rejected,
    )
