"""How many objects the proposals reach, whatever their class: average recall of the RPN and of every loop.

COCO's definition (arXiv 1502.05082; ``COCOeval`` with ``useCats = 0``): boxes meet objects best first, each object
once; recall is averaged over IoU 0.50:0.05:0.95. Crowds are no objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from r3cnn.evaluation.ground_truth import Instance
from r3cnn.evaluation.protocol import IOU_THRESHOLDS, Stats
from r3cnn.ranges import check_range

FloatArray = NDArray[np.float64]
_THRESHOLDS = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)  # as COCOeval has them
RPN = "rpn"


@dataclass(frozen=True)
class ImageRecall:
    """Objects of one image that were reached.

    Attributes:
        num_objects: Objects that could be.
        reached: (stages, limits, T) int64, objects reached by the best boxes, T IoU thresholds.
    """

    num_objects: int
    reached: NDArray[np.int64]


def objects_by_image(annotations: Sequence[Instance]) -> dict[int, FloatArray]:
    """(G, 4) boxes ``(x, y, width, height)`` of each image that has any, without crowds.

    Category by category, the order in which COCOeval decides between objects that a box overlaps equally.
    """
    boxes: dict[int, list[list[float]]] = {}
    for one in sorted(annotations, key=lambda one: one["category_id"]):
        if not one["iscrowd"]:
            boxes.setdefault(one["image_id"], []).append(one["bbox"])
    return {image_id: np.array(rows, dtype=np.float64) for image_id, rows in boxes.items()}


def image_recall(stages: Sequence[FloatArray], objects: FloatArray, limits: Sequence[int]) -> ImageRecall:
    """Matches the boxes of every stage with the objects of the image.

    Args:
        stages: (N, 4) boxes ``(x, y, width, height)`` of each stage, best first, in pixels of the image file.
        objects: (G, 4) boxes of the objects, alike.
        limits: Numbers of boxes, ascending.
    """
    reached = [reached_objects(boxes[: limits[-1]], objects, limits) for boxes in stages]
    shape = (len(stages), len(limits), len(_THRESHOLDS))
    return ImageRecall(len(objects), np.array(reached, dtype=np.int64).reshape(shape))


def reached_objects(boxes: FloatArray, objects: FloatArray, limits: Sequence[int]) -> NDArray[np.int64]:
    """(limits, T) objects that the best boxes reach; each box takes the free object that it overlaps most."""
    found = np.zeros((len(boxes) + 1, len(_THRESHOLDS)), dtype=np.int64)
    if len(boxes) and len(objects):
        iou = coco_mask.iou(boxes, objects, np.zeros(len(objects), dtype=np.uint8))  # (N, G)
        is_free = np.ones((len(_THRESHOLDS), len(objects)), dtype=bool)
        rows = np.arange(len(_THRESHOLDS))
        for box in np.flatnonzero(iou.max(axis=1) >= _THRESHOLDS[0]).tolist():
            reachable = np.where(is_free & (iou[box] >= _THRESHOLDS[:, None]), iou[box], -1.0)  # (T, G)
            # The last of equals, as COCOeval takes it.
            best = len(objects) - 1 - reachable[:, ::-1].argmax(axis=1)
            is_hit = reachable[rows, best] >= 0
            is_free[rows[is_hit], best[is_hit]] = False
            found[box + 1] = is_hit
    return found.cumsum(axis=0)[[min(limit, len(boxes)) for limit in limits]]


def average_recall(images: Sequence[ImageRecall], limits: Sequence[int]) -> dict[str, Stats]:
    """``{"rpn": {"ar100": …}, "1": …}``: in [0, 1] per stage and number of boxes; None where there is no object.

    Loop t is "t"; its boxes are those that it hands on.
    """
    if not images:
        return {}
    objects = sum(image.num_objects for image in images)
    reached = np.sum([image.reached for image in images], axis=0)  # (stages, limits, T)
    names = [RPN, *(str(loop) for loop in range(1, len(reached)))]
    return {
        name: {
            f"ar{limit}": float(np.mean(counts / objects)) if objects else None
            for limit, counts in zip(limits, stage, strict=True)
        }
        for name, stage in zip(names, reached, strict=True)
    }


def checked_limits(limits: Sequence[int]) -> tuple[int, ...]:
    """Numbers of boxes, once they are known to ascend from 1 on.

    Raises:
        ValueError: If they do not.
    """
    found = tuple(limits)
    check_range("[1, inf)", recall_at=found or None)
    if list(found) != sorted(set(found)):
        raise ValueError(f"recall_at must ascend, got {list(found)}")
    return found
