"""An annotation file of the size of COCO's training set, drawn from a seed.

Lengths are those of ``instances_train2017.json``: about 500 bytes for each annotation with the fields of COCO, 23
corners per object on average, one object in ten in two parts, one annotation in 85 a crowd with uncompressed run
lengths.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 480, 640
CLASS_NAMES = tuple(f"class {number}" for number in range(80))
NUM_SHAPES, NUM_CROWDS = 4096, 16  # drawn again and again: to write millions of different numbers would take minutes
CORNERS_LOG_MEAN, CORNERS_LOG_SPREAD, CORNERS_RANGE = 2.85, 0.75, (4, 200)
TWO_PARTS_SHARE, CROWD_SHARE, CROWD_RUNS = 0.1, 1 / 85, 120


def write_coco_sized(file: Path, images: int, annotations: int, seed: int) -> None:
    """Writes a sound COCO file; the same arguments give the same bytes.

    Raises:
        ValueError: For a file without an image, or a number below 0.
    """
    if images < 1 or min(annotations, seed) < 0:
        raise ValueError(f"images must be >= 1, annotations and seed >= 0, got {images}, {annotations} and {seed}")
    random = np.random.default_rng(seed)
    shapes = [_shape(random) for _ in range(NUM_SHAPES)]
    crowds = [_crowd(random) for _ in range(NUM_CROWDS)]
    choices = random.integers(NUM_SHAPES, size=annotations).tolist()
    is_crowd = (random.random(annotations) < CROWD_SHARE).tolist()
    image_ids = (random.integers(images, size=annotations) * 3 + 9).tolist()
    labels = random.integers(len(CLASS_NAMES), size=annotations).tolist()
    categories = [{"supercategory": "thing", "id": i + 1, "name": name} for i, name in enumerate(CLASS_NAMES)]
    rows = enumerate(zip(choices, is_crowd, image_ids, labels, strict=True), start=1)
    with file.open("w", encoding="utf-8") as stream:
        stream.write(f'{{"info": {{}}, "licenses": [], "categories": {json.dumps(categories)}, "images": [')
        stream.write(", ".join(_image(number * 3 + 9) for number in range(images)))
        stream.write('], "annotations": [')
        for number, (choice, is_one, image_id, label) in rows:
            body = crowds[choice % NUM_CROWDS] if is_one else shapes[choice]
            stream.write(", " if number > 1 else "")
            stream.write(f'{body[:-1]}, "image_id": {image_id}, "category_id": {label + 1}, "id": {number}}}')
        stream.write("]}")


def _image(image_id: int) -> str:
    name = f"{image_id:012d}.jpg"
    return (
        f'{{"license": 3, "file_name": "{name}", "coco_url": "http://images.example.org/train2017/{name}", '
        f'"height": {HEIGHT}, "width": {WIDTH}, "date_captured": "2013-11-14 11:18:45", '
        f'"flickr_url": "http://farm9.example.org/8186/8119368305_4e622c8349_z.jpg", "id": {image_id}}}'
    )


def _shape(random: np.random.Generator) -> str:
    """Outline, area and box of an object."""
    sides = random.uniform(20, 220, 2)
    corner = random.uniform(0, 1, 2) * (np.array([WIDTH, HEIGHT]) - sides)
    num_parts = 1 + int(random.random() < TWO_PARTS_SHARE)
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
    return json.dumps({"segmentation": polygons, "area": area, "iscrowd": 0, "bbox": box})


def _crowd(random: np.random.Generator) -> str:
    """Run lengths, area and box of a crowd over the whole image."""
    cuts = np.sort(random.choice(HEIGHT * WIDTH, CROWD_RUNS, replace=False))
    counts = np.diff([0, *cuts, HEIGHT * WIDTH]).tolist()
    runs, box = {"counts": counts, "size": [HEIGHT, WIDTH]}, [0, 0, WIDTH, HEIGHT]
    return json.dumps({"segmentation": runs, "area": sum(counts[1::2]), "iscrowd": 1, "bbox": box})
