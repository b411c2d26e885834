"""``r3cnn bench index``: the index of an annotation file of COCO's size, beside pycocotools.

Each read has a process of its own, and its time is the processor's: the reads take turns of a minute, too few of them
for a median to remove what else a busy machine does. On an idle one it is the time by the clock, as both have one
thread.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from r3cnn.benchmarks.harness import MB, Row, Turns, compare, index_with_pycocotools, run_alone
from r3cnn.data.reading import read_annotations

OURS, CACHED, BASELINE = "ours", "ours, kept from before", "pycocotools.COCO"
HEIGHT, WIDTH = 480, 640
CLASS_NAMES = tuple(f"class {number}" for number in range(80))
NUM_SHAPES, NUM_CROWDS = 4096, 16  # drawn again and again: to write millions of different numbers would take minutes
CORNERS_LOG_MEAN, CORNERS_LOG_SPREAD, CORNERS_RANGE = 2.85, 0.75, (4, 200)
TWO_PARTS_SHARE, CROWD_SHARE, CROWD_RUNS = 0.1, 1 / 85, 120


def index_rows(*, images: int, annotations: int, repetitions: int, seed: int) -> list[Row]:
    """Processor time and memory from the file to an index that images can be looked up in; ours is checked as well."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "instances.json")
        write_coco_sized(file, images, annotations, seed)
        cached = partial(read_annotations, file, CLASS_NAMES, index_cache=Path(folder, "cache"))
        calls = {
            OURS: partial(read_annotations, file, CLASS_NAMES),
            CACHED: cached,
            BASELINE: partial(index_with_pycocotools, file),
        }
        run_alone(cached)  # fills the cache
        rounds = [{name: run_alone(call) for name, call in calls.items()} for _ in range(repetitions)]
    turns = Turns({name: [found[name][0] for found in rounds] for name in calls}, {})
    memory = {name: statistics.median(found[name][1] for found in rounds) / MB for name in calls}
    title = f"processor time of the index of {images} images, {annotations} annotations"
    return [
        turns.row(f"{title}: {OURS} / {BASELINE}", OURS, BASELINE, 0.5),
        compare(f"its memory at the worst moment: {OURS} / {BASELINE}", memory[OURS], memory[BASELINE], 1 / 3, "MB"),
        turns.row(f"{title}: {CACHED} / {BASELINE}", CACHED, BASELINE),
    ]


def write_coco_sized(file: Path, images: int, annotations: int, seed: int) -> None:
    """Writes a sound COCO file; the same arguments give the same bytes.

    Lengths are those of ``instances_train2017.json``: about 500 bytes for each annotation with the fields of COCO, 23
    corners per object on average, one object in ten in two parts, one annotation in 85 a crowd with uncompressed run
    lengths.
    """
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
    urls = {
        "coco_url": f"http://images.example.org/train2017/{name}",
        "flickr_url": f"http://farm.example.org/{name:>40}",
    }
    about = {"license": 3, "date_captured": "2013-11-14 11:18:45", **urls}
    return json.dumps({"id": image_id, "file_name": name, "height": HEIGHT, "width": WIDTH, **about})


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
