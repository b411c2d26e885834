"""Records of small COCO files."""

from __future__ import annotations

from typing import Any

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
SQUARE = [[10.0, 20.0, 30.0, 20.0, 30.0, 40.0, 10.0, 40.0]]


def image(image_id: int = 1, **changes: Any) -> dict[str, Any]:
    return {"id": image_id, "file_name": f"{image_id}.png", "height": 60, "width": 80, **changes}


def annotation(annotation_id: int = 1, **changes: Any) -> dict[str, Any]:
    """A square of 20 px at (10, 20), a dog."""
    entry = {"id": annotation_id, "image_id": 1, "category_id": 7, "iscrowd": 0, "area": 400.0}
    return {**entry, "bbox": [10.0, 20.0, 20.0, 20.0], "segmentation": SQUARE, **changes}
