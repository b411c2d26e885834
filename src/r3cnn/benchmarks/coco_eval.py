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
from r3cnn.benchmarks.harness import Row, index_with_pycocotools, take_turns
from r3cnn.benchmarks.masks import draw_masks
from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.evaluation.paste import paste_and_encode
from r3cnn.structures import Detections, InstanceMasks, Size, Target

OURS, BASELINE = "ours", "pycocotools"
TOLERANCE = 2e-12
JITTER = 0.1  # of a box's side: detections overlap their object by some 0.7 in the mean


def coco_eval_rows(
    *,
    images: int,
    image_size: Size,
    classes: int,
    objects: int,
    detections: int,
    repetitions: int,
    warmups: int,
    seed: int,
) -> list[Row]:
    """Time from collected detections to box and mask AP.

    Raises:
        ValueError: If there are fewer detections than objects.
        ArithmeticError: If the two AP differ, since the times would then be of something else.
    """
    if detections < objects:
        raise ValueError(
            f"parts.coco_eval.detections must be at least parts.coco_eval.objects, got {detections} and {objects}"
        )
    generator = torch.Generator().manual_seed(seed)
    annotations: list[dict[str, object]] = []
    found, records = [], []
    for image_id in range(1, images + 1):
        masks, boxes = draw_masks(detections, image_size, seed + image_id)
        labels = torch.randint(classes, (detections,), generator=generator)
        annotations += _annotations(masks[:objects], boxes[:objects], labels, image_size, image_id)
        found.append(_near(masks, boxes, labels, image_size, generator))
        records.append(
            {"id": image_id, "file_name": f"{image_id}.png", "height": image_size[0], "width": image_size[1]}
        )
    content = {
        "images": records,
        "categories": [{"id": number, "name": str(number)} for number in range(1, classes + 1)],
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, start=1)],
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instances.json"
        file.write_text(json.dumps(content))
        metric, coco = CocoAP(file, range(1, classes + 1)), index_with_pycocotools(file)
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), InstanceMasks.empty(image_size))
    for image_id, one in enumerate(found, start=1):
        example = Example(torch.zeros(3, *image_size, dtype=torch.uint8), nothing, image_id, image_size)
        metric.update(Batch.of([example]), [[one]])
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
    return [
        {
            "image_id": image_id,
            "category_id": label + 1,
            "iscrowd": 0,
            "bbox": coco_mask.toBbox({"size": list(size), "counts": counts}).tolist(),
            "area": area,
            "segmentation": {"size": list(size), "counts": counts.decode("ascii")},
        }
        for counts, area, label in zip(rles.counts, rles.areas.tolist(), labels.tolist(), strict=False)
    ]


def _near(masks: Tensor, boxes: Tensor, labels: Tensor, size: Size, generator: torch.Generator) -> Detections:
    """Detections whose boxes lie a little beside those of the objects, with random scores."""
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + torch.randn(boxes.shape, generator=generator) * sides * JITTER
    moved = torch.minimum(moved.clamp(min=0), torch.tensor(size).flip(0).repeat(2))
    moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 1)
    scores = torch.rand(len(boxes), generator=generator).sort(descending=True).values
    return Detections(moved, scores, labels, masks, scores)
