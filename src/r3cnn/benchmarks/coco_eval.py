"""Scoring of detections against ground truth, beside pycocotools on the same detections."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from r3cnn.batch import Batch, Example
from r3cnn.benchmarks.masks import draw_masks
from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.timing import take_turns
from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.evaluation.paste import paste_and_encode
from r3cnn.evaluation.records import ResultEntry
from r3cnn.structures import Detections, InstanceMasks, Size, Target

OURS, PEER = "ours", "pycocotools"
TOLERANCE = 1e-12
JITTER = 0.1  # of a box's side: detections overlap their object by some 0.7 in the mean


@dataclass(frozen=True)
class EvalWorkload:
    """What is scored.

    Attributes:
        images: Images.
        image_size: (height, width) in pixels of each.
        classes: Classes, drawn evenly.
        objects: Objects per image.
        detections: Detections per image, at least as many as objects; the further ones miss.
        seed: Of everything drawn.
    """

    images: int
    image_size: Size
    classes: int
    objects: int
    detections: int
    seed: int


def coco_eval_rows(
    *,
    images: int,
    image_size: Sequence[int],
    classes: int,
    objects: int,
    detections: int,
    repetitions: int,
    warmups: int,
    seed: int,
) -> list[Row]:
    """Time from collected detections to box and mask AP; arguments as in `EvalWorkload`, and rounds.

    Raises:
        ValueError: If there are fewer detections than objects.
        ArithmeticError: If the two AP differ by more than 1e-12, since the times would then be of something else.
    """
    if detections < objects:
        raise ValueError(f"detections must be at least objects, got {detections} and {objects}")
    workload = EvalWorkload(images, (int(image_size[0]), int(image_size[1])), classes, objects, detections, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        found = _write_truth(workload, path)
        metric = CocoAP(path, range(1, classes + 1))
        for number, one in enumerate(found, start=1):
            metric.update(_batch(number, workload.image_size), [[one]])
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(path))
    entries = metric.compute().detections

    def ours() -> float:
        metrics = metric.compute().metrics
        return (metrics["box"]["ap"] or 0.0) + (metrics["mask"]["ap"] or 0.0)

    calls = {OURS: ours, PEER: lambda: _peer(truth, entries)}
    measured = take_turns(calls, repetitions=repetitions, warmups=warmups, device=torch.device("cpu"))
    if abs(measured[OURS].outcome - measured[PEER].outcome) > 2 * TOLERANCE:
        raise ArithmeticError(
            f"sums of box and mask AP differ: { {name: one.outcome for name, one in measured.items()} }"
        )
    name = f"box and mask AP of {images} images with {detections} detections: {OURS} / {PEER}"
    return [Row(name, measured[OURS].seconds, measured[PEER].seconds, None, False)]


def _peer(truth: COCO, entries: Sequence[ResultEntry]) -> float:
    """Sum of box and mask AP by pycocotools, from entries of a results file."""
    total = 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        results = truth.loadRes([dict(entry) for entry in entries])
        for kind in ("bbox", "segm"):
            evaluation = COCOeval(truth, results, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            total += float(evaluation.stats[0])
    return total


def _write_truth(workload: EvalWorkload, path: Path) -> list[Detections]:
    """Writes an annotation file and gives detections near its objects, and others elsewhere."""
    generator = torch.Generator().manual_seed(workload.seed)
    height, width = workload.image_size
    annotations: list[dict[str, object]] = []
    found = []
    for image_id in range(1, workload.images + 1):
        masks, boxes = draw_masks(workload.detections, workload.image_size, workload.seed + image_id)
        labels = torch.randint(workload.classes, (workload.detections,), generator=generator)
        codes = paste_and_encode(masks[: workload.objects], boxes[: workload.objects], workload.image_size)
        for counts, area, label in zip(codes.counts, codes.areas.tolist(), labels.tolist(), strict=False):
            code = {"size": [height, width], "counts": counts}
            one = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1, "iscrowd": 0}
            one |= {"bbox": coco_mask.toBbox(code).tolist(), "area": area}
            annotations.append({**one, "segmentation": {**code, "counts": counts.decode("ascii")}})
        found.append(_near(masks, boxes, labels, workload, generator))
    images = [{"id": number, "height": height, "width": width} for number in range(1, workload.images + 1)]
    categories = [{"id": number, "name": str(number)} for number in range(1, workload.classes + 1)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    path.write_text(json.dumps(content), encoding="utf-8")
    return found


def _near(
    masks: Tensor, boxes: Tensor, labels: Tensor, workload: EvalWorkload, generator: torch.Generator
) -> Detections:
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    limit = torch.tensor(workload.image_size).flip(0).repeat(2)
    moved = boxes + torch.randn(boxes.shape, generator=generator) * sides * JITTER
    moved = torch.minimum(moved.clamp(min=0), limit)
    moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 1)
    scores = torch.rand(len(boxes), generator=generator).sort(descending=True).values
    return Detections(moved, scores, labels, masks, scores)


def _batch(image_id: int, size: Size) -> Batch:
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), InstanceMasks.empty(size))
    return Batch.of([Example(torch.zeros(3, *size, dtype=torch.uint8), nothing, image_id, size)])
