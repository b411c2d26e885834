"""Annotation files on their way into a run: checked, and kept for the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import msgspec

from r3cnn.data.annotations import Annotations, read_index
from r3cnn.data.checks import AnnotationError, OnBadAnnotation, Problems, RecordKind
from r3cnn.data.index_cache import Stored, digest_of, load_or_make, name_of
from r3cnn.data.packed_segments import PackedSegments
from r3cnn.structures import Id

MAX_OVERHANG = 0.1
SMALLEST_KEPT = 4 * 2**20
"""Bytes of an annotation file; smaller ones are read in less time than it takes to keep them."""

ARRAYS = ("image_ids", "sizes", "file_names", "starts", "boxes", "labels", "rows", "crowd_starts", "crowds")
SEGMENT_ARRAYS = ("points", "polygons", "outlines", "runs", "run_starts")
CODE = (
    "annotation_records.py",
    "annotations.py",
    "checks.py",
    "coco_file.py",
    "image_records.py",
    "packed_segments.py",
    "reading.py",
    "segmentation.py",
)
"""Modules that an index depends on: when one changes, nothing that was kept before is used any more."""

LIBRARIES = ("msgspec", "numpy", "pycocotools")
"""Distributions whose versions it depends on in the same way."""


class _Facts(msgspec.Struct):
    file_ids: list[tuple[int, Id]]
    category_ids: list[Id]
    left_out: dict[str, int]
    problems: list[str]
    notes: list[str]
    rejected_images: list[int]
    rejected_annotations: list[int]


def read_annotations(
    file: Path,
    classes: Sequence[str],
    on_bad_annotation: OnBadAnnotation = "error",
    *,
    may_lack_classes: bool = False,
    max_overhang: float = MAX_OVERHANG,
    index_cache: Path | None = None,
) -> Annotations:
    """Reads, checks and packs a COCO file, see `read_index`.

    Args:
        file: COCO JSON.
        classes: Names of the K categories in label order.
        on_bad_annotation: ``error`` raises at the first look, ``skip`` leaves bad records out, counts and logs them.
        may_lack_classes: Whether the file's categories may be a part of ``classes``, as is enough to evaluate on.
        max_overhang: Share of a side of its image by which a box may reach over it, where it is clipped.
        index_cache: Folder to keep the checked index of a large file in; None keeps nothing.

    Raises:
        AnnotationError: For a file that is no COCO file, with other categories than ``classes``, or with a bad record.
    """
    read = partial(read_index, file, classes, may_lack_classes=may_lack_classes, max_overhang=max_overhang)
    annotations, problems = _read(file, read, index_cache, (*classes, str(may_lack_classes), str(max_overhang)))
    problems.report(on_bad_annotation)
    return annotations


def _read(
    file: Path, read: Callable[[], tuple[Annotations, Problems]], index_cache: Path | None, settings: Sequence[str]
) -> tuple[Annotations, Problems]:
    if index_cache is None or not file.is_file() or file.stat().st_size < SMALLEST_KEPT:
        return read()
    digest = digest_of(file)
    name = name_of(digest, *settings, _digest_of_code(), *map(version, LIBRARIES))

    def make() -> Stored:
        made = _stored(*read())
        if digest_of(file) != digest:
            raise AnnotationError(f"{file}: was written to while it was read; try again when it is finished")
        return made

    return _restored(file, load_or_make(index_cache, name, make))


@cache
def _digest_of_code() -> str:
    return name_of(*((Path(__file__).parent / module).read_text(encoding="utf-8") for module in CODE))


def _stored(annotations: Annotations, problems: Problems) -> Stored:
    arrays = {name: getattr(annotations, name) for name in ARRAYS}
    segments = {name: getattr(annotations.segments, name) for name in SEGMENT_ARRAYS}
    rejected = annotations.rejected
    facts = _Facts(
        [*annotations.file_ids.items()],
        list(annotations.category_ids),
        dict(annotations.left_out),
        problems.found,
        problems.notes,
        list(rejected.images),
        list(rejected.annotations),
    )
    return Stored({**arrays, **segments}, msgspec.to_builtins(facts))


def _restored(file: Path, stored: Stored) -> tuple[Annotations, Problems]:
    facts = msgspec.convert(stored.facts, _Facts)
    positions: dict[RecordKind, list[int]] = {"image": facts.rejected_images, "annotation": facts.rejected_annotations}
    problems = Problems(file, facts.problems, facts.notes, positions)
    segments = PackedSegments(**{name: stored.arrays[name] for name in SEGMENT_ARRAYS})
    annotations = Annotations(
        file,
        file_ids=dict(facts.file_ids),
        **{name: stored.arrays[name] for name in ARRAYS},
        segments=segments,
        category_ids=tuple(facts.category_ids),
        rejected=problems.rejected,
        left_out=facts.left_out,
        notes=tuple(facts.notes),
    )
    return annotations, problems
