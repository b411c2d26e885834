"""Folders as finished runs leave them, made up: two images, three loops whose boxes fit better and better."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from r3cnn.reporting.figures import draw_loop_strip
from r3cnn.reporting.html import HtmlSettings, PictureSettings
from r3cnn.reporting.runs import Run
from r3cnn.structures import Detections, InstanceMasks, Target

SIZE = (60, 80)  # height, width
TRUTH = (20.0, 10.0, 60.0, 40.0)  # x1, y1, x2, y2
SETTINGS = HtmlSettings(PictureSettings(images=2, side=120, quality=70, total_mib=1), curve_points=50, detailed_runs=10)
CURVES = "step,train/loss,train/loop1/cls,val/loop1/box_ap\n0,3.0,1.5,\n1,2.5,1.25,\n2,2.0,1.0,0.25\n"


def draw_strip(file: Path, loops: int) -> None:
    """What a run draws of an image: a box that fits better after every loop."""
    masks = InstanceMasks.from_windows([torch.ones(30, 40, dtype=torch.uint8)], [(20, 10)], SIZE)
    truth = Target(torch.tensor([TRUTH]), torch.zeros(1, dtype=torch.int64), masks)
    scores = torch.tensor([0.9])
    found = [
        Detections(truth.boxes + torch.tensor([10.0 / loop, 0, 10.0 / loop, 0]), scores, truth.labels, scores, scores)
        for loop in range(1, loops + 1)
    ]
    draw_loop_strip(torch.full((3, *SIZE), 60, dtype=torch.uint8), found, truth, file)


def write_run(folder: Path, *, aps: tuple[float, ...] = (0.3, 0.4, 0.5)) -> Run:
    """A run with one loop per AP."""
    folder.mkdir(parents=True)
    for image in (1, 2):
        draw_strip(folder / "pictures" / f"{image}_loops.png", len(aps))
    (folder / "metrics.csv").write_text(CURVES)
    (folder / "roi_statistics_train.json").write_text(json.dumps(roi_report(len(aps))))
    stats = {"ap": aps[-1], "ap50": 0.7, "ap75": None, "ap_small": 0.1, "ap_medium": 0.2, "ap_large": 0.3}
    loops = {str(loop): {"box": stats | {"ap": ap}, "mask": stats | {"ap": ap}} for loop, ap in enumerate(aps, start=1)}
    metrics = {"box": stats, "mask": stats, "per_class": {}, "loops": loops, "images": {"seen": 2, "total": 2}}
    thresholds = (0.5, 0.6, 0.7)[: len(aps)]
    return Run(str(folder), "shapes instances_val", (0,) * len(aps), thresholds, metrics, {})


def roi_report(num_loops: int) -> dict[str, object]:
    """Statistics with more RoIs in later loops, all at an IoU of 0.5 to 0.55."""
    histogram, gain = [0] * 20, {"rois": 0, "mean_gain": None, "share_worse": None}
    loops = {}
    for loop in range(1, num_loops + 1):
        counts = [*histogram[:10], 10 * loop, *histogram[11:]]
        loops[str(loop)] = {
            "iou_threshold": 0.4 + 0.1 * loop,
            **dict.fromkeys(("rois", "ignored", "positives", "negatives", "background"), 0),
            "histogram": counts,
            "per_class": {},
            "per_size": {},
            "refined_positives": gain,
            "refined_by_iou": [gain] * 20,
            "balance": 0.5,
            "balance_so_far": None,
        }
    return {"images": 10, "bin_edges": [edge / 20 for edge in range(21)], "loops": loops}
