"""What every detection is: right, or wrong in one of six ways (TIDE, arXiv 2008.08115)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from r3cnn.evaluation.ground_truth import Instance
from r3cnn.evaluation.protocol import IouType

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
NOTHING = -1
Number = TypeVar("Number", np.int64, np.float64)


class Verdict(IntEnum):
    """What a detection is; the order of the errors is that of the paper."""

    FOUND = 0
    CLS = 1
    LOC = 2
    BOTH = 3
    DUPE = 4
    BKG = 5
    IGNORED = 6


ERRORS = (Verdict.CLS, Verdict.LOC, Verdict.BOTH, Verdict.DUPE, Verdict.BKG)


@dataclass(frozen=True)
class Overlaps:
    """One image: D detections, best score first, and G objects that are no crowds.

    Attributes:
        scores: (D,) float64.
        found: (D,) int64 category id of each detection.
        objects: (G,) int64 category id of each object.
        iou: (D, G) float64 in [0, 1].
        crowded: (D,) float64, largest part of the detection that lies in a crowd of its category.
    """

    scores: FloatArray
    found: IntArray
    objects: IntArray
    iou: FloatArray
    crowded: FloatArray


def overlaps_of(
    detections: Sequence[Instance], truth: Sequence[Instance], iou_type: IouType, max_detections: int
) -> Overlaps:
    """Overlaps in one image.

    Args:
        detections: What was found, with scores; in any order.
        truth: Objects and crowds.
        iou_type: Of boxes or of masks.
        max_detections: Detections per category that count, best first.
    """
    ranked = sorted(detections, key=lambda one: -one["score"])
    categories = np.array([one["category_id"] for one in ranked], dtype=np.int64)
    rank = np.array([np.count_nonzero(categories[:place] == key) for place, key in enumerate(categories)], np.int64)
    ranked = [one for one, number in zip(ranked, rank.tolist(), strict=True) if number < max_detections]
    objects = [one for one in truth if not one["iscrowd"]]
    crowds = [one for one in truth if one["iscrowd"]]
    found = categories[rank < max_detections]
    same = found[:, None] == np.array([one["category_id"] for one in crowds], dtype=np.int64)
    inside = np.where(same, _iou(ranked, crowds, iou_type), 0.0)
    return Overlaps(
        scores=np.array([one["score"] for one in ranked], dtype=np.float64),
        found=found,
        objects=np.array([one["category_id"] for one in objects], dtype=np.int64),
        iou=_iou(ranked, objects, iou_type),
        crowded=inside.max(axis=1, initial=0.0),
    )


def _iou(found: Sequence[Instance], truth: Sequence[Instance], iou_type: IouType) -> FloatArray:
    if not found or not truth:
        return np.zeros((len(found), len(truth)))
    key = "bbox" if iou_type == "bbox" else "segmentation"
    crowds = [one["iscrowd"] for one in truth]
    iou = coco_mask.iou([one[key] for one in found], [one[key] for one in truth], crowds)  # type: ignore[literal-required]
    return cast(FloatArray, np.asarray(iou, dtype=np.float64))


@dataclass(frozen=True)
class Judged:
    """All images at one foreground IoU: D detections, by image and then best score first, and G objects by image.

    Attributes:
        scores: (D,) float64.
        found: (D,) int64 category ids.
        verdicts: (D,) int64, see ``Verdict``.
        targets: (D,) int64 index of the object that it found, should have found (Loc), or found under a wrong name
            (Cls); -1 for others.
        objects: (G,) int64 category ids.
        is_found: (G,) bool.
        is_missed: (G,) bool: not found, and no detection would find it if its class or its place were right.
    """

    scores: FloatArray
    found: IntArray
    verdicts: IntArray
    targets: IntArray
    objects: IntArray
    is_found: NDArray[np.bool_]
    is_missed: NDArray[np.bool_]


def judge(images: Mapping[int, Overlaps], foreground_iou: float, background_iou: float) -> Judged:
    """Judges the detections of all images, in ascending order of the images' ids."""
    ordered = [images[key] for key in sorted(images)]
    results = [_judge_image(image, foreground_iou, background_iou) for image in ordered]
    starts = np.cumsum([0, *(len(image.objects) for image in ordered)])
    targets = [np.where(t == NOTHING, t, t + start) for (_, t), start in zip(results, starts, strict=False)]
    verdicts, all_targets = _joined([v for v, _ in results], np.int64), _joined(targets, np.int64)
    objects = _joined([image.objects for image in ordered], np.int64)
    is_found, is_wanted = np.zeros(len(objects), dtype=bool), np.zeros(len(objects), dtype=bool)
    is_found[all_targets[verdicts == Verdict.FOUND]] = True
    is_wanted[all_targets[all_targets != NOTHING]] = True
    return Judged(
        scores=_joined([image.scores for image in ordered], np.float64),
        found=_joined([image.found for image in ordered], np.int64),
        verdicts=verdicts,
        targets=all_targets,
        objects=objects,
        is_found=is_found,
        is_missed=~is_wanted,
    )


def _joined(parts: Sequence[NDArray[Number]], kind: type[Number]) -> NDArray[Number]:
    return np.concatenate([*parts, np.zeros(0, dtype=kind)]).astype(kind)


def match_image(image: Overlaps, foreground_iou: float) -> IntArray:
    """(D,) object that each detection finds, or -1: best score first, the best free one of its category (COCO)."""
    free = np.where(image.found[:, None] == image.objects, image.iou, -1.0)
    matched = np.full(len(image.found), NOTHING, dtype=np.int64)
    for number in range(len(matched) if len(image.objects) else 0):
        best = len(image.objects) - 1 - int(free[number, ::-1].argmax())  # of equals, COCO takes the last
        if free[number, best] >= min(foreground_iou, 1 - 1e-10):
            matched[number] = best
            free[:, best] = -1.0
    return matched


def _judge_image(image: Overlaps, foreground: float, background: float) -> tuple[IntArray, IntArray]:
    """Verdicts and targets (D,) within one image."""
    matched = match_image(image, foreground)
    verdicts = np.full(len(matched), Verdict.BKG, dtype=np.int64)
    verdicts[image.crowded >= foreground] = Verdict.IGNORED
    targets = matched.copy()
    if len(image.objects):
        is_same = image.found[:, None] == image.objects
        same, other = np.where(is_same, image.iou, 0.0), np.where(is_same, 0.0, image.iou)
        best_same, best_other, best = same.max(axis=1), other.max(axis=1), image.iou.max(axis=1)
        is_loc = (best_same >= background) & (best_same < foreground)
        is_cls = ~is_loc & (best_other >= foreground)
        errors = np.select(
            [is_loc, is_cls, best_same >= foreground, best < background],
            [Verdict.LOC, Verdict.CLS, Verdict.DUPE, Verdict.BKG],
            Verdict.BOTH,
        )
        verdicts = np.where(verdicts == Verdict.IGNORED, verdicts, errors)
        wanted = np.select([is_loc, is_cls], [same.argmax(axis=1), other.argmax(axis=1)], NOTHING)
        targets = np.where(verdicts == Verdict.IGNORED, NOTHING, wanted)
        targets = np.where(matched == NOTHING, targets, matched)
    return np.where(matched == NOTHING, verdicts, Verdict.FOUND), targets
