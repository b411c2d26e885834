"""Content of ``metrics.json`` as a type that readers can check against without loading anything heavy."""

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
