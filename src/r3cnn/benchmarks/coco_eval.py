"""``r3cnn bench coco_eval``: detections to box and mask AP, beside pycocotools on the same detections."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from r3cnn.batch import Batch, Example
from r3cnn.benchmarks.harness import Row, take_turns
from r3cnn.benchmarks.masks import draw_masks
from r3cnn.benchmarks.workload import pair
from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.evaluation.paste import paste_and_encode
from r3cnn.structures import Detections, InstanceMasks, Size, Target

OURS, BASELINE = "ours", "pycocotools"
TOLERANCE = 2e-12
JITTER = 0.1  # of a box's side: detections overlap their object by some 0.7 in the mean


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
    """Time from collected detections to box and mask AP.

    Args:
        images: Images.
        image_size: (height, width) in pixels of each.
        classes: Classes, drawn evenly.
        objects: Objects per image.
        detections: Detections per image, at least as many as objects; the further ones miss.
        repetitions: Rounds that count.
        warmups: Rounds before them.
        seed: Of everything drawn.

    Raises:
        ValueError: If there are fewer detections than objects.
        ArithmeticError: If the two AP differ, since the times would then be of something else.
    """
    if detections < objects:
        raise ValueError(f"detections must be at least objects, got {detections} and {objects}")
    size = pair(image_size)
    generator = torch.Generator().manual_seed(seed)
    annotations: list[dict[str, object]] = []
    found, records = [], []
    for image_id in range(1, images + 1):
        masks, boxes = draw_masks(detections, size, seed + image_id)
        labels = torch.randint(classes, (detections,), generator=generator)
        truth = _annotations(masks[:objects], boxes[:objects], labels, size, image_id)
        annotations += [{"id": len(annotations) + number, **one} for number, one in enumerate(truth, start=1)]
        found.append(_near(masks, boxes, labels, size, generator))
        records.append({"id": image_id, "file_name": f"{image_id}.png", "height": size[0], "width": size[1]})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instances.json"
        categories = [{"id": number, "name": str(number)} for number in range(1, classes + 1)]
        file.write_text(json.dumps({"images": records, "categories": categories, "annotations": annotations}))
        metric = CocoAP(file, range(1, classes + 1))
        for image_id, one in enumerate(found, start=1):
            metric.update(_batch(image_id, size), [[one]])
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(file))
    entries = metric.compute().detections

    def ours() -> float:
        metrics = metric.compute().metrics
        return (metrics["box"]["ap"] or 0.0) + (metrics["mask"]["ap"] or 0.0)

    calls = {OURS: ours, BASELINE: lambda: _pycocotools(coco, entries)}
    turns = take_turns(calls, repetitions=repetitions, warmups=warmups)
    if abs(turns.outcomes[OURS] - turns.outcomes[BASELINE]) > TOLERANCE:
        raise ArithmeticError(f"sums of box and mask AP differ: {turns.outcomes}")
    title = f"box and mask AP of {images} images with {detections} detections: {OURS} / {BASELINE}"
    return [turns.row(title, OURS, BASELINE)]


def _pycocotools(truth: COCO, entries: Sequence[Mapping[str, object]]) -> float:
    """Sum of box and mask AP, from entries of a results file."""
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


def _annotations(masks: Tensor, boxes: Tensor, labels: Tensor, size: Size, image_id: int) -> list[dict[str, object]]:
    """Objects of an image, without their ids."""
    rles = paste_and_encode(masks, boxes, size)
    annotations = []
    for counts, area, label in zip(rles.counts, rles.areas.tolist(), labels.tolist(), strict=False):
        rle = {"size": list(size), "counts": counts}
        segmentation = {**rle, "counts": counts.decode("ascii")}
        one = {"image_id": image_id, "category_id": label + 1, "iscrowd": 0, "bbox": coco_mask.toBbox(rle).tolist()}
        annotations.append({**one, "area": area, "segmentation": segmentation})
    return annotations


def _near(masks: Tensor, boxes: Tensor, labels: Tensor, size: Size, generator: torch.Generator) -> Detections:
    """Detections whose boxes lie a little beside those of the objects, with random scores."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + torch.randn(boxes.shape, generator=generator) * sides * JITTER
    moved = torch.minimum(moved.clamp(min=0), torch.tensor(size).flip(0).repeat(2))
    moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 1)
    scores = torch.rand(len(boxes), generator=generator).sort(descending=True).values
    return Detections(moved, scores, labels, masks, scores)


def _batch(image_id: int, size: Size) -> Batch:
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), InstanceMasks.empty(size))
    return Batch.of([Example(torch.zeros(3, *size, dtype=torch.uint8), nothing, image_id, size)])
