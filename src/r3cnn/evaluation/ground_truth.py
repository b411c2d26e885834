"""The original annotation file, made ready for COCO evaluation once and kept between epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from pycocotools import mask as coco_mask

from r3cnn.data.annotations import read_all
from r3cnn.data.checks import OnBadAnnotation
from r3cnn.names import Id, Size


class MaskCode(TypedDict):
    """A COCO mask as pycocotools handles it inside: ``counts`` is compressed bytes."""

    size: list[int]
    counts: bytes


class Instance(TypedDict, total=False):
    """One annotated or found object in the form that COCO evaluators take; detections have a ``score``."""

    id: int
    image_id: int
    category_id: Id
    bbox: list[float]
    area: float
    iscrowd: int
    segmentation: MaskCode
    score: float


@dataclass(frozen=True)
class GroundTruth:
    """A COCO annotation file with every mask as a code; areas, boxes and crowds as in the file.

    Attributes:
        images: Size of each image by its id, that of the data set.
        category_names: Unique name of each category by its id.
        annotations: Annotations in the file's order, all fields present, numbered from 1.
        file_ids: The file's id of an image where that is another.
    """

    images: dict[int, Size]
    category_names: dict[Id, str]
    annotations: tuple[Instance, ...]
    file_ids: Mapping[int, Id] = field(default_factory=dict)

    @property
    def own_ids(self) -> dict[Id, int]:
        """Id of each image by the one that the annotation file, and what is written about it, has for it."""
        return {self.file_ids.get(image_id, image_id): image_id for image_id in self.images}


def load_ground_truth(
    path: Path, on_bad_annotation: OnBadAnnotation = "error", max_overhang: float = math.inf
) -> GroundTruth:
    """Reads an annotation file with the reader of the data sets: what that leaves out is no ground truth.

    A missing area is the mask's, a missing box encloses the mask.

    Args:
        path: COCO annotation file.
        on_bad_annotation: ``error`` or ``skip``, as for the data set.
        max_overhang: Likewise.

    Raises:
        ValueError: If the file is no COCO file, or for a bad record.
    """
    id_of, found = read_all(path, max_overhang)
    found.problems.report(on_bad_annotation)
    category_ids, image_ids = tuple(id_of.values()), found.images.ids.tolist()
    sizes = {
        image_id: (height, width)
        for image_id, (height, width) in zip(image_ids, found.images.sizes.tolist(), strict=True)
    }
    columns = found.columns
    rows = zip(
        columns.images.tolist(),
        columns.labels.tolist(),
        columns.boxes.tolist(),
        columns.areas.tolist(),
        columns.is_crowd.tolist(),
        strict=True,
    )
    annotations: list[Instance] = []
    for row, (image, label, box, area, is_crowd) in enumerate(rows):
        image_id = image_ids[image]
        code: MaskCode = {"size": [*sizes[image_id]], "counts": found.encoded(row)}
        annotations.append(
            {
                "id": row + 1,
                "image_id": image_id,
                "category_id": category_ids[label],
                "bbox": box,
                "area": float(coco_mask.area(code)) if math.isnan(area) else area,
                "iscrowd": int(is_crowd),
                "segmentation": code,
            }
        )
    names = {category: name for name, category in id_of.items()}
    return GroundTruth(sizes, names, tuple(annotations), found.images.file_ids)
