"""RoI counts as the numbers and the JSON that people look at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from r3cnn.evaluation.metrics_format import Gain, Kinds, LoopRois, RoiReport
from r3cnn.evaluation.roi_statistics import BIN_EDGES, GAIN_UNIT, SIZES, Counts

POSITIVE, NEGATIVE = 0, 1
NUMBER, GAIN, WORSE = 0, 1, 2
_ROUNDING = 1e-9


def balance(histogram: Sequence[int] | NDArray[np.int64], iou_threshold: float) -> float | None:
    """How evenly positives spread over the IoU levels: 1 is evenly, 0 is all in one bin.

    The entropy of the histogram over the n bins that lie wholly at or above the threshold, divided by log n. A bin
    that the threshold cuts is left out.

    Args:
        histogram: (20,) RoIs per bin of 0.05.
        iou_threshold: In [0, 1].

    Returns:
        None where no RoI lies in these bins, or there are fewer than two of them.
    """
    first = [edge >= iou_threshold - _ROUNDING for edge in BIN_EDGES].index(True)
    counts = np.asarray(histogram[first:], dtype=np.float64)
    if len(counts) < 2 or not counts.any():
        return None
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum() / math.log(len(counts))) + 0.0


def roi_report(counts: Counts, iou_thresholds: Sequence[float], classes: Sequence[str]) -> RoiReport:
    """Names the counts.

    Args:
        counts: What ``RoiStatistics`` gives.
        iou_thresholds: One per loop.
        classes: Name of each label.
    """
    loops = {str(loop + 1): _loop(counts, loop, iou_thresholds, classes) for loop in range(len(iou_thresholds))}
    return {"images": int(counts["images"]), "bin_edges": list(BIN_EDGES), "loops": loops}


def _loop(counts: Counts, loop: int, thresholds: Sequence[float], classes: Sequence[str]) -> LoopRois:
    histogram = counts["histogram"]
    sizes, background = counts["sizes"][loop], int(counts["background"][loop])
    so_far = balance(histogram[: loop + 1].sum(axis=0), min(thresholds[: loop + 1]))
    return {
        "iou_threshold": thresholds[loop],
        "rois": int(histogram[loop].sum() + counts["ignored"][loop]),
        "ignored": int(counts["ignored"][loop]),
        "histogram": histogram[loop].tolist(),
        "positives": int(sizes[:, POSITIVE].sum()),
        "negatives": int(sizes[:, NEGATIVE].sum()) + background,
        "background": background,
        "per_class": {name: _kinds(row) for name, row in zip(classes, counts["classes"][loop], strict=True)},
        "per_size": {name: _kinds(row) for name, row in zip(SIZES, sizes, strict=True)},
        "refined_positives": _gain(counts["positive_gains"][loop]),
        "refined_by_iou": [_gain(column) for column in counts["gains"][loop].T],
        "balance": balance(histogram[loop], thresholds[loop]),
        "balance_so_far": so_far,
    }


def _kinds(row: NDArray[np.int64]) -> Kinds:
    return {"positives": int(row[POSITIVE]), "negatives": int(row[NEGATIVE])}


def _gain(row: NDArray[np.int64]) -> Gain:
    number = int(row[NUMBER])
    if not number:
        return {"rois": 0, "mean_gain": None, "share_worse": None}
    return {"rois": number, "mean_gain": int(row[GAIN]) * GAIN_UNIT / number, "share_worse": int(row[WORSE]) / number}


def roi_scalars(report: RoiReport) -> dict[str, float]:
    """The numbers that are worth a curve, as ``loop1/roi_balance`` …; undefined ones are NaN.

    ``roi_positives_small`` … are per image; those of single classes stand in the file and its picture alone.
    """
    found: dict[str, float] = {}
    for loop, values in report["loops"].items():
        refined, rois = values["refined_positives"], values["rois"]
        numbers: dict[str, float | None] = {
            "roi_balance": values["balance"],
            "roi_balance_so_far": values["balance_so_far"],
            "roi_positive_share": values["positives"] / rois if rois else None,
            "roi_iou_gain": refined["mean_gain"],
            "roi_share_worse": refined["share_worse"],
        }
        for size, kinds in values["per_size"].items():
            numbers[f"roi_positives_{size}"] = kinds["positives"] / report["images"] if report["images"] else None
        found |= {f"loop{loop}/{name}": math.nan if value is None else value for name, value in numbers.items()}
    return found
