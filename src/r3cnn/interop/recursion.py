"""What configurations of mmdetection say about the loops of a network, which its weights do not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from r3cnn.interop.literals import calls, floats_of
from r3cnn.schedule import LoopSchedule

TOLERANCE = 1e-6
DELETE = "_delete_"  # in a dict of theirs: forget what the base says


@dataclass(frozen=True)
class StatedLoops:
    """What a configuration says; None where it says nothing.

    Attributes:
        num_loops: Training loops.
        delta_stds: Four standard deviations of the box deltas per head.
        loss_weights: One per training loop.
        iou_thresholds: One per training loop; there may be more of them than loops.
    """

    num_loops: int | None = None
    delta_stds: tuple[tuple[float, ...], ...] | None = None
    loss_weights: tuple[float, ...] | None = None
    iou_thresholds: tuple[float, ...] | None = None

    def contradictions(self, schedule: LoopSchedule) -> dict[str, str]:
        """Our option that would say what the configuration says, by the field that says otherwise."""
        found = {}
        if self.num_loops not in (None, schedule.num_loops):
            found["heads"] = f"{self.num_loops} loops, not {schedule.num_loops}"
        if self.delta_stds is not None and not _same_rows(self.delta_stds, schedule.delta_stds):
            found["delta_stds"] = f"recursion.delta_stds={_text(self.delta_stds)}"
        for name in ("loss_weights", "iou_thresholds"):
            stated: tuple[float, ...] | None = getattr(self, name)
            ours = tuple(getattr(schedule, name))
            if stated is not None and not _same(stated[: self._length(stated)], ours):
                found[name] = f"recursion.{name}={_text(stated[: self._length(stated)])}"
        return found

    def _length(self, stated: tuple[float, ...]) -> int:
        return len(stated) if self.num_loops is None else self.num_loops


def loops_in(config: str) -> StatedLoops:
    """What a configuration says about its loops, with its bases merged as they stand in it."""
    model = _merged(config, "model")
    head = _mapping(model.get("roi_head"))
    train = {**_merged(config, "train_cfg"), **_mapping(model.get("train_cfg"))}
    weights = floats_of(head.get("stage_loss_weights"))
    stages = head.get("num_stages")
    num_loops = stages if isinstance(stages, int) else None if weights is None else len(weights)
    thresholds = [_mapping(_mapping(loop).get("assigner")).get("pos_iou_thr") for loop in _listed(train.get("rcnn"))]
    coders = [_mapping(_mapping(box).get("bbox_coder")) for box in _listed(head.get("bbox_head"))]
    rows = [floats_of(coder.get("target_stds")) for coder in coders]
    return StatedLoops(
        num_loops=num_loops,
        delta_stds=tuple(row for row in rows if row is not None) if rows and None not in rows else None,
        loss_weights=weights,
        iou_thresholds=floats_of(thresholds) or None,
    )


def _merged(config: str, name: str) -> dict[str, object]:
    """The value of a variable that several files of a configuration assign to, each changing what the last one said."""
    merged: dict[str, object] = {}
    for values in calls(config, rf"^{name}\s*=\s*dict\("):
        merged = _merge(merged, values)
    return merged


def _merge(base: Mapping[str, object], change: Mapping[str, object]) -> dict[str, object]:
    if change.get(DELETE) is True:
        return {key: value for key, value in change.items() if key != DELETE}
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merge(old if isinstance(old, dict) else {}, value) if isinstance(value, dict) else value
    return merged


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _listed(value: object) -> list[object]:
    """One entry per head or loop; a network with one says it without a list."""
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, dict) else []


def _same(stated: tuple[float, ...], ours: tuple[float, ...]) -> bool:
    return len(stated) == len(ours) and all(abs(a - b) <= TOLERANCE for a, b in zip(stated, ours, strict=True))


def _same_rows(stated: tuple[tuple[float, ...], ...], ours: object) -> bool:
    rows = [tuple(row) for row in ours] if isinstance(ours, list | tuple) else []
    return len(stated) == len(rows) and all(_same(a, b) for a, b in zip(stated, rows, strict=True))


def _text(value: object) -> str:
    return str(value).replace("(", "[").replace(",)", "]").replace(")", "]").replace(" ", "")
