from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_records import CATEGORIES
from PIL import Image


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[..., Path]:
    """Writes a COCO file, and for each of its images a noise picture of the size it says."""

    def write(
        images: list[dict[str, Any]],
        annotations: list[dict[str, Any]],
        categories: list[dict[str, Any]] = CATEGORIES,
        name: str = "coco.json",
    ) -> Path:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for entry in images:
            is_sound = all(isinstance(entry[key], int) and entry[key] > 0 for key in ("id", "height", "width"))
            if is_sound and entry["file_name"] == f"{entry['id']}.png":
                random = np.random.default_rng(entry["id"])
                pixels = random.integers(0, 256, (entry["height"], entry["width"], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / entry["file_name"])
        file = tmp_path / name
        file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        return file

    return write
