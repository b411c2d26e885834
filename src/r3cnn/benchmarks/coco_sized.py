"""An annotation file of the size of COCO's training set, drawn from a seed.

Lengths are those of ``instances_train2017.json``: 118,287 images with the fields of COCO, 860,001 annotations, about
500 bytes each; 23 corners per object on average, one object in ten in two parts, one annotation in 85 a crowd with
uncompressed run lengths.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 480, 640
NUM_CLASSES = 80
DIFFERENT_SHAPES = 4096
"""Objects are drawn from so many outlines: to write millions of different numbers would take minutes."""

CORNERS_LOG_MEAN, CORNERS_LOG_SPREAD, CORNERS_RANGE = 2.85, 0.75, (4, 200)
IN_TWO_PARTS, CROWDS = 0.1, 1 / 85
CROWD_RUNS = 120


@dataclass(frozen=True)
class IndexSize:
    """How much stands in the file.

    Attributes:
        images: Number of images.
        annotations: Number of annotations.
        seed: Of everything drawn, >= 0.
    """

    images: int
    annotations: int
    seed: int


def class_names() -> tuple[str, ...]:
    """Names of the categories, in the order of their ids."""
    return tuple(f"class {number}" for number in range(NUM_CLASSES))


def write_coco_sized(file: Path, size: IndexSize) -> None:
    """Writes a sound COCO file; the same size gives the same bytes.

    Raises:
        ValueError: For a file without an image, or a seed below 0.
    """
    if size.images < 1 or size.annotations < 0 or size.seed < 0:
        raise ValueError(f"{size}: at least one image, and no number below 0")
    random = np.random.default_rng(size.seed)
    shapes = [_shape(random) for _ in range(min(DIFFERENT_SHAPES, size.annotations))]
    crowds = [_crowd(random) for _ in range(16)]
    choice = random.integers(max(len(shapes), 1), size=size.annotations).tolist()
    is_crowd = (random.random(size.annotations) < CROWDS).tolist()
    image_ids = (random.integers(size.images, size=size.annotations) * 3 + 9).tolist()
    classes = random.integers(1, NUM_CLASSES + 1, size=size.annotations).tolist()
    with file.open("w", encoding="utf-8") as stream:
        stream.write('{"info": {"description": "drawn"}, "licenses": [], "images": [')
        stream.write(", ".join(_image(number * 3 + 9) for number in range(size.images)))
        stream.write('], "annotations": [')
        rows = zip(choice, is_crowd, image_ids, classes, strict=True)
        for number, (shape, crowded, image_id, category) in enumerate(rows):
            body = crowds[shape % len(crowds)] if crowded else shapes[shape]
            stream.write(", " if number else "")
            stream.write(f'{{{body}, "image_id": {image_id}, "category_id": {category}, "id": {number + 1}}}')
        categories = [{"supercategory": "thing", "id": i + 1, "name": name} for i, name in enumerate(class_names())]
        stream.write(f'], "categories": {json.dumps(categories)}}}')


def _image(image_id: int) -> str:
    name = f"{image_id:012d}.jpg"
    return (
        f'{{"license": 3, "file_name": "{name}", "coco_url": "http://images.example.org/train2017/{name}", '
        f'"height": {HEIGHT}, "width": {WIDTH}, "date_captured": "2013-11-14 11:18:45", '
        f'"flickr_url": "http://farm9.example.org/8186/8119368305_4e622c8349_z.jpg", "id": {image_id}}}'
    )


def _shape(random: np.random.Generator) -> str:
    """Outline, area and box of an object, as the inside of a JSON object."""
    sides = random.uniform(20, 220, 2)
    corner = random.uniform(0, 1, 2) * (np.array([WIDTH, HEIGHT]) - sides)
    num_parts = 1 + int(random.random() < IN_TWO_PARTS)
    polygons = []
    for part in range(num_parts):
        count = int(np.clip(random.lognormal(CORNERS_LOG_MEAN, CORNERS_LOG_SPREAD) / num_parts, *CORNERS_RANGE))
        angles = np.sort(random.uniform(0, 2 * np.pi, count))
        radii = random.uniform(0.6, 1.0, count) * sides[:, None] / 2 / num_parts
        middle = corner + sides * (2 * part + 1) / (2 * num_parts)
        points = middle + (radii * np.stack([np.cos(angles), np.sin(angles)])).T
        polygons.append(points.round(2).reshape(-1).tolist())
    box = [round(float(value), 2) for value in (*corner, *sides)]
    area = round(float(sides.prod()) / 2, 4)
    return f'"segmentation": {json.dumps(polygons)}, "area": {area}, "iscrowd": 0, "bbox": {json.dumps(box)}'


def _crowd(random: np.random.Generator) -> str:
    """Run lengths, area and box of a crowd over the whole image."""
    cuts = np.sort(random.choice(HEIGHT * WIDTH, CROWD_RUNS, replace=False))
    counts = np.diff([0, *cuts, HEIGHT * WIDTH]).tolist()
    runs = json.dumps({"counts": counts, "size": [HEIGHT, WIDTH]})
    return f'"segmentation": {runs}, "area": {sum(counts[1::2])}, "iscrowd": 1, "bbox": [0, 0, {WIDTH}, {HEIGHT}]'
