"""How much average precision each kind of error costs: what it would be if just that kind were put right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from r3cnn.evaluation.error_matching import ERRORS, FloatArray, IntArray, Judged, Verdict

RECALLS = np.linspace(0, 1, 101)
MISS, FALSE_POSITIVES, FALSE_NEGATIVES = "miss", "false_positives", "false_negatives"
KINDS = (*(error.name.lower() for error in ERRORS), MISS)


def mean_ap(judged: Judged) -> float | None:
    """AP at the foreground IoU, mean over the categories that have objects; None without any. COCO's own figure."""
    scored = judged.verdicts != Verdict.IGNORED
    is_found = judged.verdicts[scored] == Verdict.FOUND
    return _mean_ap(judged.scores[scored], judged.found[scored], is_found, judged.objects, judged.objects)


def ap_gains(judged: Judged) -> dict[str, float | None]:
    """AP with one kind of error put right, less AP as it is (TIDE, arXiv 2008.08115, section 2.3), by kind.

    ``cls``, ``loc``: the detection gets the right class or place; of several at one object, be they of either kind,
    the best is kept, and if the object was found, none. ``both``, ``dupe``, ``bkg``: the detection is dropped.
    ``miss``: objects that no detection is about do not count. ``false_positives``: every wrong detection is dropped.
    ``false_negatives``: no object counts that was not found. Gains do not add up.

    Returns:
        Fractions in [-1, 1]; None where AP is undefined.
    """
    base = mean_ap(judged)
    fixed = {error.name.lower(): _without(judged, error) for error in ERRORS}
    fixed[MISS] = _counting(judged, ~judged.is_missed)
    is_right = judged.verdicts == Verdict.FOUND
    found = judged.found[is_right]
    fixed[FALSE_POSITIVES] = _mean_ap(
        judged.scores[is_right], found, np.ones(len(found), dtype=bool), judged.objects, judged.objects
    )
    fixed[FALSE_NEGATIVES] = _counting(judged, judged.is_found)
    return {kind: None if base is None or ap is None else ap - base for kind, ap in fixed.items()}


def _without(judged: Judged, error: Verdict) -> float | None:
    """AP with one kind of wrong detection put right or dropped."""
    corrected = np.zeros(len(judged.scores), dtype=bool)
    if error in (Verdict.CLS, Verdict.LOC):
        corrected[_best_errors(judged)] = True
        corrected &= judged.verdicts == error
    kept = corrected | ~np.isin(judged.verdicts, (error, Verdict.IGNORED))
    found = judged.found.copy()
    found[corrected] = judged.objects[judged.targets[corrected]]
    is_right = corrected | (judged.verdicts == Verdict.FOUND)
    return _mean_ap(judged.scores[kept], found[kept], is_right[kept], judged.objects, judged.objects)


def _best_errors(judged: Judged) -> IntArray:
    """The best Cls or Loc detection of each object that was not found; of equals, the first."""
    candidates = np.flatnonzero(np.isin(judged.verdicts, (Verdict.CLS, Verdict.LOC)))
    candidates = candidates[~judged.is_found[judged.targets[candidates]]]
    ranked = candidates[np.argsort(-judged.scores[candidates], kind="stable")]
    return ranked[np.unique(judged.targets[ranked], return_index=True)[1]]


def _counting(judged: Judged, counted: NDArray[np.bool_]) -> float | None:
    """AP if only some of the objects counted."""
    scored = judged.verdicts != Verdict.IGNORED
    is_found = judged.verdicts[scored] == Verdict.FOUND
    return _mean_ap(judged.scores[scored], judged.found[scored], is_found, judged.objects[counted], judged.objects)


def _mean_ap(
    scores: FloatArray, found: IntArray, is_right: NDArray[np.bool_], objects: IntArray, all_objects: IntArray
) -> float | None:
    """Mean over the categories in ``all_objects``, of which those in ``objects`` are to be found."""
    values = []
    for category in np.unique(all_objects):
        chosen = found == category
        values.append(average_precision(scores[chosen], is_right[chosen], int((objects == category).sum())))
    return float(np.mean(values)) if values else None


def average_precision(scores: FloatArray, is_right: NDArray[np.bool_], num_objects: int) -> float:
    """COCO's AP of one category: interpolated precision, mean over 101 recall levels.

    Without objects it is 1 if nothing was found, else 0: nothing was missed, so only wrong detections can be amiss.

    Args:
        scores: (D,) of the detections, in the order in which equals are to be ranked.
        is_right: (D,) whether each found an object.
        num_objects: Objects to be found.
    """
    if not num_objects:
        return 0.0 if len(scores) else 1.0
    ranked = is_right[np.argsort(-scores, kind="stable")]
    right = np.cumsum(ranked)
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(right / num_objects, RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())
