"""Folders as finished runs leave them, made up: two images, three loops whose boxes come closer and closer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from r3cnn.reporting.html import HtmlSettings, PictureSettings
from r3cnn.reporting.runs import Run

SIZE = (60, 80)  # height, width
TRUTH = (20.0, 10.0, 40.0, 30.0)  # x, y, width, height
SETTINGS = HtmlSettings(PictureSettings(images=2, side=120, quality=70, score_threshold=0.5), curve_points=50)
CURVES = "step,train/loss,train/loop1/cls,val/loop1/box_ap\n0,3.0,1.5,\n1,2.5,1.25,\n2,2.0,1.0,0.25\n"


def write_data(root: Path) -> None:
    """Images 1 and 2 and an annotation file with one object in each."""
    (root / "val").mkdir(parents=True)
    records = []
    for number in (1, 2):
        pixels = np.full((*SIZE, 3), 60 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(root / "val" / f"{number}.png")
        records.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
    objects = [{"id": n, "image_id": n, "category_id": 1, "bbox": TRUTH, "iscrowd": 0} for n in (1, 2)]
    content = {"images": records, "annotations": objects, "categories": [{"id": 1, "name": "thing"}]}
    (root / "instances.json").write_text(json.dumps(content))


def detection(image_id: int, shift: float, score: float = 0.9) -> dict[str, object]:
    """A box as large as the object's, moved to the right, with a mask that fills it."""
    x, y, width, height = TRUTH[0] + shift, *TRUTH[1:]
    mask = np.zeros(SIZE, dtype=np.uint8, order="F")
    mask[int(y) : int(y + height), int(x) : int(x + width)] = 1
    code = coco_mask.encode(mask)
    segmentation = {"size": list(SIZE), "counts": code["counts"].decode()}
    box = [x, y, width, height]
    return {"image_id": image_id, "category_id": 1, "bbox": box, "score": score, "segmentation": segmentation}


def write_run(folder: Path, data_root: Path, *, name: str = "naive", aps: tuple[float, ...] = (0.3, 0.4, 0.5)) -> Run:
    """A run with one loop per AP."""
    folder.mkdir(parents=True)
    for loop in range(1, len(aps) + 1):
        found = [detection(image_id, shift=10.0 / loop) for image_id in (1, 2)]
        file = "detections.json" if loop == len(aps) else f"detections_loop{loop}.json"
        (folder / file).write_text(json.dumps([*found, detection(1, 0, score=0.2)]))
    (folder / "image_ids.json").write_text("[1, 2]")
    (folder / "metrics.csv").write_text(CURVES)
    (folder / "roi_statistics_train.json").write_text(json.dumps(roi_report(len(aps))))
    stats = {"ap": aps[-1], "ap50": 0.7, "ap75": None, "ap_small": 0.1, "ap_medium": 0.2, "ap_large": 0.3}
    loops = {str(loop): {"box": stats | {"ap": ap}, "mask": stats | {"ap": ap}} for loop, ap in enumerate(aps, start=1)}
    metrics = {"box": stats, "mask": stats, "per_class": {}, "loops": loops, "images": {"seen": 2, "total": 2}}
    data = {"root": str(data_root), "val": {"images": "val", "annotations": "instances.json"}}
    thresholds = (0.5, 0.6, 0.7)[: len(aps)]
    return Run(str(folder), "shapes instances_val", (0,) * len(aps), thresholds, metrics, {"data": data})


def roi_report(num_loops: int) -> dict[str, object]:
    """Statistics with more RoIs in later loops, all at an IoU of 0.5 to 0.55."""
    histogram = [0] * 20
    loops = {}
    for loop in range(1, num_loops + 1):
        counts = [*histogram[:10], 10 * loop, *histogram[11:]]
        loops[str(loop)] = {
            "iou_threshold": 0.4 + 0.1 * loop,
            "histogram": counts,
            "balance": 0.5,
            "balance_so_far": None,
        }
    return {"images": 10, "bin_edges": [edge / 20 for edge in range(21)], "loops": loops}
