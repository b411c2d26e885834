"""What is wrong with the detections of every loop, and what each loop repaired and broke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from r3cnn.evaluation.confusion import confusion_matrix
from r3cnn.evaluation.error_matching import Judged, Overlaps, Verdict, judge, overlaps_of
from r3cnn.evaluation.error_oracle import ap_gains, mean_ap
from r3cnn.evaluation.ground_truth import GroundTruth, Instance
from r3cnn.evaluation.protocol import IOU_THRESHOLDS, IouType, Precision, Protocol
from r3cnn.structures import Id

FOUND, LOC, CLS, MISSED = "found", "loc", "cls", "missed"
IOU_TYPES: dict[str, IouType] = {"box": "bbox", "mask": "segm"}


class Changes(TypedDict):
    """Objects that a loop found and the loop before did not, by what had been wrong; and the reverse, by what is."""

    repaired: dict[str, int]
    broken: dict[str, int]


class ErrorsAtIou(TypedDict):
    """One loop at one foreground IoU; ``gains`` as in ``ap_gains``, ``changes`` None for the first loop."""

    ap: float | None
    gains: dict[str, float | None]
    detections: dict[str, int]
    objects: dict[str, int]
    changes: Changes | None


class LoopErrors(TypedDict):
    """One loop. Curves hold 101 precisions at recalls 0, 0.01, … 1 by IoU, mean over the classes with objects."""

    at_iou: dict[str, ErrorsAtIou]
    per_class: dict[str, dict[str, float | None]]
    curves: dict[str, list[float]]
    class_curves: dict[str, list[float]]
    confusion: list[list[int]]


class ErrorReport(TypedDict):
    """Content of ``errors.json``; the matrices have a row per class and one for nothing, columns alike."""

    images: int
    classes: list[str]
    box: dict[str, LoopErrors]
    mask: dict[str, LoopErrors]


@dataclass(frozen=True)
class ErrorSettings:
    """How errors are told apart.

    Attributes:
        foreground_ious: IoU from which on an object is found; each gives its own decomposition. The confusion matrix
            and the curves per class take the first.
        background_iou: Below it, a detection has nothing to do with an object.
        score_threshold: Detections with a lower score are left out of the confusion matrix, and of nothing else.
        max_detections: Detections per image and category that count.
    """

    foreground_ious: Sequence[float]
    background_iou: float
    score_threshold: float
    max_detections: int

    def __post_init__(self) -> None:
        known = [f"{value:.2f}" for value in IOU_THRESHOLDS]
        wrong = [iou for iou in self.foreground_ious if f"{iou:.2f}" not in known or round(iou, 2) != iou]
        if wrong or not 0 < len(set(self.foreground_ious)) == len(self.foreground_ious):
            got = list(self.foreground_ious)
            raise ValueError(f"foreground_ious must be some of {', '.join(known)}, each once, got {got}")
        if not 0 < self.background_iou <= min(self.foreground_ious):
            raise ValueError(f"background_iou must be in (0, {min(self.foreground_ious)}], got {self.background_iou}")
        if self.max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {self.max_detections}")


def error_report(
    truth: GroundTruth,
    loops: Sequence[Sequence[Instance]],
    mask_loops: Sequence[Sequence[Instance]],
    image_ids: Sequence[int],
    settings: ErrorSettings,
) -> ErrorReport:
    """Analyses the detections of every loop.

    Args:
        truth: The annotation file.
        loops: What each loop found, with the scores that rank the boxes.
        mask_loops: The same with the scores that rank the masks.
        image_ids: Images that were looked at; objects of others do not count.
        settings: How errors are told apart.

    Raises:
        ValueError: If a detection names an unknown image or category.
    """
    for found in loops:
        _check(found, truth, image_ids)
    labels = {key: label for label, key in enumerate(sorted(truth.category_names))}  # numbers, whatever the ids are
    names = [truth.category_names[key] for key in labels]
    truth = replace(
        truth, category_names=dict(enumerate(names)), annotations=tuple(_labelled(truth.annotations, labels))
    )
    kinds = {
        kind: _kind(truth, [_labelled(loop, labels) for loop in found], iou_type, image_ids, settings)
        for (kind, iou_type), found in zip(IOU_TYPES.items(), (loops, mask_loops), strict=True)
    }
    return {"images": len(image_ids), "classes": names, "box": kinds["box"], "mask": kinds["mask"]}


def _labelled(instances: Sequence[Instance], labels: Mapping[Id, int]) -> list[Instance]:
    return [cast(Instance, {**one, "category_id": labels[one["category_id"]]}) for one in instances]


def _check(found: Sequence[Instance], truth: GroundTruth, image_ids: Sequence[int]) -> None:
    images, categories = {one["image_id"] for one in found}, {one["category_id"] for one in found}
    for name, unknown in (
        ("image", images - set(image_ids)),
        ("category", categories - truth.category_names.keys()),
    ):
        if unknown:
            raise ValueError(
                f"detections name {name} {min(unknown)}, which the annotations lack: do they belong together?"
            )


def _kind(
    truth: GroundTruth,
    loops: Sequence[Sequence[Instance]],
    iou_type: IouType,
    image_ids: Sequence[int],
    settings: ErrorSettings,
) -> dict[str, LoopErrors]:
    reports: dict[str, LoopErrors] = {}
    before: dict[str, NDArray[np.str_]] = {}
    objects = _by_image(truth.annotations, image_ids)
    for number, found in enumerate(loops, start=1):
        by_image = _by_image(found, image_ids)
        overlaps = {
            key: overlaps_of(by_image[key], objects[key], iou_type, settings.max_detections) for key in image_ids
        }
        precision = _precision(truth, found, iou_type, image_ids, settings.max_detections)
        at_iou: dict[str, ErrorsAtIou] = {}
        for iou in settings.foreground_ious:
            judged = judge(overlaps, iou, settings.background_iou)
            states = object_states(judged)
            at_iou[f"{iou:g}"] = _at_iou(judged, states, before.get(f"{iou:g}"))
            before[f"{iou:g}"] = states
        reports[str(number)] = _loop(truth, precision, at_iou, overlaps, settings)
    return reports


def _by_image(instances: Sequence[Instance], image_ids: Sequence[int]) -> dict[int, list[Instance]]:
    grouped: dict[int, list[Instance]] = {key: [] for key in image_ids}
    for one in instances:
        if one["image_id"] in grouped:
            grouped[one["image_id"]].append(one)
    return grouped


def _precision(
    truth: GroundTruth, found: Sequence[Instance], iou_type: IouType, image_ids: Sequence[int], max_detections: int
) -> Precision:
    protocol = Protocol([image_ids], list(truth.category_names), max_detections)
    return protocol.precision(truth, lambda _: found, iou_type)


def _at_iou(judged: Judged, states: NDArray[np.str_], before: NDArray[np.str_] | None) -> ErrorsAtIou:
    return {
        "ap": mean_ap(judged),
        "gains": ap_gains(judged),
        "detections": {kind.name.lower(): int((judged.verdicts == kind).sum()) for kind in Verdict},
        "objects": {state: int((states == state).sum()) for state in (FOUND, LOC, CLS, MISSED)},
        "changes": None if before is None else _changes(before, states),
    }


def object_states(judged: Judged) -> NDArray[np.str_]:
    """(G,) what became of each object: found; else ``loc`` or ``cls`` if a detection is about it; else missed."""
    states = np.full(len(judged.objects), MISSED, dtype="<U8")
    for state, verdict in ((CLS, Verdict.CLS), (LOC, Verdict.LOC), (FOUND, Verdict.FOUND)):
        states[judged.targets[judged.verdicts == verdict]] = state
    return states


def _changes(before: NDArray[np.str_], after: NDArray[np.str_]) -> Changes:
    wrong = (LOC, CLS, MISSED)
    return {
        "repaired": {state: int(((before == state) & (after == FOUND)).sum()) for state in wrong},
        "broken": {state: int(((before == FOUND) & (after == state)).sum()) for state in wrong},
    }


def _loop(
    truth: GroundTruth,
    precision: Precision,
    at_iou: dict[str, ErrorsAtIou],
    overlaps: Mapping[int, Overlaps],
    settings: ErrorSettings,
) -> LoopErrors:
    names = truth.category_names
    at = {f"{iou:g}": number for number, value in enumerate(IOU_THRESHOLDS) for iou in (round(value, 2),)}
    chosen = {f"{iou:g}": precision.values[at[f"{iou:g}"], :, :, 0] for iou in settings.foreground_ious}  # (R, K)
    first = next(iter(chosen.values()))
    confusion = confusion_matrix(
        overlaps, range(len(names)), settings.foreground_ious[0], score_threshold=settings.score_threshold
    )
    return {
        "at_iou": at_iou,
        "per_class": {
            names[key]: {
                "ap": ap,
                **{f"ap{round(100 * float(iou))}": _mean(rows[:, k]) for iou, rows in chosen.items()},
            }
            for k, (key, ap) in enumerate(precision.per_category().items())
        },
        "curves": {iou: _mean_curve(rows) for iou, rows in chosen.items()},
        "class_curves": {names[key]: first[:, k].round(4).tolist() for k, key in enumerate(precision.category_ids)},
        "confusion": confusion.tolist(),
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values[0] > -1 else None


def _mean_curve(values: NDArray[np.float64]) -> list[float]:
    defined = values[:, values[0] > -1]
    return cast(list[float], defined.mean(axis=1).tolist()) if defined.shape[1] else []
