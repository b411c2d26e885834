"""The few fields of COCO files that pictures take, read fast: results of a large data set are long."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import msgspec

from r3cnn.data.coco_file import read_text
from r3cnn.reporting.drawing import Rectangle

Content = TypeVar("Content")
FileId = int | float | str


class CocoImage(msgspec.Struct, frozen=True):
    """An image of an annotation file."""

    id: FileId
    file_name: str


class _Annotation(msgspec.Struct):
    image_id: FileId
    bbox: Rectangle | None = None


class _Content(msgspec.Struct):
    images: list[CocoImage]
    annotations: list[_Annotation]


class Code(msgspec.Struct, frozen=True):
    """A mask as compressed run lengths; ``size`` is (height, width)."""

    size: list[int]
    counts: str


class Found(msgspec.Struct, frozen=True):
    """One detection; ``bbox`` is (x, y, width, height) in pixels of the image file."""

    image_id: FileId
    score: float
    bbox: Rectangle
    segmentation: Code

    def corners(self) -> Rectangle:
        """``(x1, y1, x2, y2)``."""
        return _corners(self.bbox)


@dataclass(frozen=True)
class CocoFile:
    """An annotation file.

    Attributes:
        images: By id, in the order of the file.
        boxes: ``(x1, y1, x2, y2)`` of the objects of each image that has any.
    """

    images: Mapping[FileId, CocoImage]
    boxes: Mapping[FileId, Sequence[Rectangle]]


@lru_cache(maxsize=4)
def read_coco(path: Path) -> CocoFile:
    """Reads an annotation file; runs mostly share one.

    Raises:
        ValueError: If it is no COCO file.
    """
    content = _decode(path, _Content)
    boxes: dict[FileId, list[Rectangle]] = {}
    for one in content.annotations:
        if one.bbox is not None:
            boxes.setdefault(one.image_id, []).append(_corners(one.bbox))
    return CocoFile({image.id: image for image in content.images}, boxes)


def detection_files(folder: Path, num_loops: int) -> list[Path]:
    """Where a run puts what it found after loop 1, 2, …; the last loop's file has no number."""
    return [*(folder / f"detections_loop{loop}.json" for loop in range(1, num_loops)), folder / "detections.json"]


def read_found(path: Path, image_ids: Collection[FileId]) -> dict[FileId, list[Found]]:
    """Detections in these images, by image id.

    Raises:
        ValueError: If the file is no COCO results file.
    """
    found: dict[FileId, list[Found]] = {}
    for one in _decode(path, list[Found]):
        if one.image_id in image_ids:
            found.setdefault(one.image_id, []).append(one)
    return found


def seen_ids(folder: Path, coco: CocoFile) -> list[FileId]:
    """Ids of the images that a run was scored on; older runs did not note them, then all.

    Raises:
        ValueError: If ``image_ids.json`` is no list of ids.
    """
    path = folder / "image_ids.json"
    return _decode(path, list[FileId]) if path.is_file() else [*coco.images]


def _corners(bbox: Rectangle) -> Rectangle:
    return bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]


def _decode(path: Path, kind: type[Content]) -> Content:
    try:
        return msgspec.json.decode(read_text(path), type=kind)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
