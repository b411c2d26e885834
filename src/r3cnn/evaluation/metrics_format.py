"""Content of ``metrics.json`` and of the RoI statistics, as types to check against without loading anything heavy."""

from __future__ import annotations

from typing import NotRequired, TypedDict

Stats = dict[str, float | None]
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


class Metrics(TypedDict):
    """Content of ``metrics.json``: fractions in [0, 1], None where there is no ground truth.

    ``box`` and ``mask`` are those of the last loop; ``loops`` holds every loop, counted from "1". Where asked for,
    ``score_fusions`` holds the loops of every further rule, and ``proposal_recall`` the average recall (``ar100`` …) of
    the proposals, "rpn", and of what each loop made of them.
    """

    box: Stats
    mask: Stats
    per_class: dict[str, Stats]
    loops: dict[str, dict[str, Stats]]
    images: dict[str, int]
    score_fusions: NotRequired[dict[str, dict[str, dict[str, Stats]]]]
    proposal_recall: NotRequired[dict[str, Stats]]


class Kinds(TypedDict):
    """RoIs by the side of the threshold that they lie on."""

    positives: int
    negatives: int


class Gain(TypedDict):
    """What refinement did to RoIs: IoU with the same object, after less before; None without any RoI."""

    rois: int
    mean_gain: float | None
    share_worse: float | None


class LoopRois(TypedDict):
    """One loop; see ``RoiStatistics`` for what is counted, and ``balance`` for the two last entries."""

    iou_threshold: float
    rois: int
    ignored: int
    histogram: list[int]
    positives: int
    negatives: int
    background: int
    per_class: dict[str, Kinds]
    per_size: dict[str, Kinds]
    refined_positives: Gain
    refined_by_iou: list[Gain]
    balance: float | None
    balance_so_far: float | None


class RoiReport(TypedDict):
    """Content of ``roi_statistics.json`` and ``roi_statistics_train.json``; loops count from "1"."""

    images: int
    bin_edges: list[float]
    loops: dict[str, LoopRois]
