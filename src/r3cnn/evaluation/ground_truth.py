"""The original annotation file, made ready for COCO evaluation once and kept between epochs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeVar, cast

from pycocotools import mask as coco_mask

from r3cnn.structures import Size

Record = TypeVar("Record")


class MaskCode(TypedDict):
    """A COCO mask as pycocotools handles it inside: ``counts`` is compressed bytes."""

    size: list[int]
    counts: bytes


class Instance(TypedDict, total=False):
    """One annotated or found object in the form that COCO evaluators take; detections have a ``score``."""

    id: int
    image_id: int
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int
    segmentation: MaskCode
    score: float


class ImageInfo(TypedDict):
    """What COCO evaluators need to know about an image."""

    id: int
    height: int
    width: int


class Category(TypedDict):
    """What COCO evaluators need to know about a category."""

    id: int
    name: str


class Dataset(TypedDict):
    """The content of a COCO file."""

    images: list[ImageInfo]
    categories: list[Category]
    annotations: list[Instance]


@dataclass(frozen=True)
class GroundTruth:
    """A COCO annotation file with every mask as a code; ids, areas and crowds as in the file.

    Attributes:
        images: Size of each image by its id.
        category_names: Unique name of each category by its id.
        annotations: Annotations in the file's order, all fields present.
    """

    images: dict[int, Size]
    category_names: dict[int, str]
    annotations: tuple[Instance, ...]

    def dataset(self, annotations: Sequence[Instance]) -> Dataset:
        """COCO content with these annotations, copied, since evaluators write into what they are given."""
        images: list[ImageInfo] = [
            {"id": key, "height": size[0], "width": size[1]} for key, size in self.images.items()
        ]
        categories: list[Category] = [{"id": key, "name": name} for key, name in self.category_names.items()]
        return {"images": images, "categories": categories, "annotations": [one.copy() for one in annotations]}


def load_ground_truth(
    path: Path, *, rejected_images: Collection[int] = (), rejected_annotations: Collection[int] = ()
) -> GroundTruth:
    """Reads an annotation file; ``info``, ``licenses``, ``iscrowd``, ``area`` and ``bbox`` may be missing.

    A missing area is the mask's, a missing box encloses the mask. Annotation id 0 becomes a free one, because COCO
    evaluators read a match with object 0 as no match.

    Args:
        path: COCO annotation file.
        rejected_images: Positions in the file's ``images`` of records to leave out.
        rejected_annotations: Positions in the file's ``annotations`` of records to leave out.

    Raises:
        ValueError: If the file is no COCO file, or an annotation has no mask or no known image.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    for key in ("images", "categories", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path} has no list {key!r}: a COCO instances file is needed")
    kept_images = _without(content["images"], rejected_images)
    try:
        images = {int(image["id"]): (int(image["height"]), int(image["width"])) for image in kept_images}
        names = {int(category["id"]): str(category.get("name", category["id"])) for category in content["categories"]}
    except KeyError as error:
        raise ValueError(f"{path}: an image or a category has no field {error}") from error
    annotations = tuple(_complete(path, _without(content["annotations"], rejected_annotations), images))
    return GroundTruth(images, _unique(names), annotations)


def _without(records: Sequence[Record], rejected: Collection[int]) -> list[Record]:
    positions = frozenset(rejected)
    return [record for position, record in enumerate(records) if position not in positions]


def _unique(names: dict[int, str]) -> dict[int, str]:
    """Appends the id to names that several categories share."""
    listed = list(names.values())
    return {key: name if listed.count(name) == 1 else f"{name} ({key})" for key, name in names.items()}


def _complete(path: Path, annotations: Sequence[dict[str, object]], images: dict[int, Size]) -> Iterator[Instance]:
    free = 1 + max((int(cast(int, one["id"])) for one in annotations if "id" in one), default=0)
    for one in annotations:
        number = int(cast(int, one.get("id", 0)))
        if number == 0:
            number, free = free, free + 1
        try:
            image_id, category_id = int(cast(int, one["image_id"])), int(cast(int, one["category_id"]))
            code = to_code(one["segmentation"], images[image_id])
        except KeyError as error:
            raise ValueError(f"{path}: annotation {number} lacks {error}, or no image has this id") from error
        area = one.get("area")
        bbox = one.get("bbox") or coco_mask.toBbox(code).tolist()
        yield {
            "id": number,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [float(side) for side in cast(list[float], bbox)],
            "area": float(coco_mask.area(code)) if area is None else float(cast(float, area)),
            "iscrowd": int(cast(int, one.get("iscrowd") or 0)),
            "segmentation": code,
        }


def to_code(segmentation: object, size: Size) -> MaskCode:
    """Polygons, uncompressed or compressed RLE -> compressed RLE, as ``pycocotools.coco.COCO.annToRLE`` does."""
    if isinstance(segmentation, list):
        if not segmentation:
            return cast(MaskCode, coco_mask.frPyObjects({"size": [*size], "counts": [size[0] * size[1]]}, *size))
        return cast(MaskCode, coco_mask.merge(coco_mask.frPyObjects(segmentation, *size)))
    code = cast(dict[str, object], segmentation)
    if isinstance(code["counts"], list):
        return cast(MaskCode, coco_mask.frPyObjects(code, *size))
    counts = code["counts"]
    compressed = counts.encode() if isinstance(counts, str) else cast(bytes, counts)
    return {"size": list(cast(list[int], code["size"])), "counts": compressed}
