"""Tiny annotation files and detections with masks that fill their boxes."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from r3cnn.batch import Batch, Example
from r3cnn.structures import Detections, InstanceMasks, Target

Box = tuple[float, float, float, float]
Found = tuple[Box, float, int]  # (x, y, width, height), score, label
SIZE = (100, 120)


def rectangle(box: Box) -> list[list[float]]:
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def annotation(number: int, image_id: int, category_id: int, box: Box, **fields: object) -> dict[str, object]:
    required = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": [*box]}
    return {**required, "segmentation": rectangle(box), "area": box[2] * box[3], "iscrowd": 0, **fields}


def detections(found: Sequence[Found], mask_scores: Sequence[float] | None = None, mask: float = 1.0) -> Detections:
    boxes = torch.tensor([box for box, _, _ in found]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.tensor([score for _, score, _ in found])
    return Detections(
        boxes=boxes,
        scores=scores,
        labels=torch.tensor([label for _, _, label in found], dtype=torch.int64),
        masks=torch.full((len(found), 28, 28), mask),
        mask_scores=scores if mask_scores is None else torch.tensor(mask_scores),
        has_mask_scores=mask_scores is not None,
    )


def batch_of(image_ids: Sequence[int], size: tuple[int, int] = SIZE) -> Batch:
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), InstanceMasks.empty(size))
    pixels = torch.zeros(3, *size, dtype=torch.uint8)
    return Batch.of([Example(pixels, empty, image_id, SIZE) for image_id in image_ids])


def write_coco(folder: Path, annotations: Sequence[dict[str, object]], image_ids: Sequence[int] = (1,)) -> Path:
    content = {
        "images": [{"id": one, "file_name": f"{one}.png", "height": SIZE[0], "width": SIZE[1]} for one in image_ids],
        "categories": [{"id": 3, "name": "disc"}, {"id": 7, "name": "star"}],
        "annotations": list(annotations),
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path
