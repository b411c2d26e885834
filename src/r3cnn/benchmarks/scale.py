"""``r3cnn bench scale`` and ``loops``: how cost grows with images, RoIs, loops, classes and instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product

from r3cnn.benchmarks.harness import Row
from r3cnn.benchmarks.networks import INFERENCE, TRAINING, Bench, cost_rows
from r3cnn.benchmarks.workload import Case
from r3cnn.structures import Size

Sweeps = Mapping[str, Sequence[int] | Sequence[Size]]


def scale_rows(
    bench: Bench, systems: Sequence[str], sweeps: Sweeps, overrides: Sequence[str] = ()
) -> tuple[list[Row], list[dict[str, object]]]:
    """Every sweep of every system in every case, in training and at inference: each value beside the first.

    Args:
        bench: Setting.
        systems: Experiments that are swept.
        sweeps: Values by what is varied, see `varied`; an empty list leaves a sweep out.
        overrides: Of all networks.

    Raises:
        ValueError: For a sweep without two different values.
    """
    rows: list[Row] = []
    details: list[dict[str, object]] = []
    for system, case, (axis, values), task in product(systems, bench.cases, sweeps.items(), (TRAINING, INFERENCE)):
        points = {str(value): varied(case, axis, value) for value in values}
        if len(points) == 1:
            raise ValueError(f"{axis} is swept over {list(points)}: two different values at least are needed")
        if not points:
            continue
        sides = {name: bench.side(system, own, (*bench.own, *overrides, *more)) for name, (own, more) in points.items()}
        turns, (first, *others) = bench.speeds(task, sides)
        for speed in others:
            title = f"{task.name}, {case.name}, {system}, {axis}: {speed.name} / {first.name}"
            rows += cost_rows(title, turns, speed, first)
        details += [{"task": task.name, "system": system, "axis": axis, **asdict(speed)} for speed in (first, *others)]
    return rows, details


def varied(case: Case, axis: str, value: int | Size) -> tuple[Case, tuple[str, ...]]:
    """The case and the overrides of the experiment with another value of what ``axis`` names.

    Raises:
        ValueError: For an unknown axis.
    """
    if not isinstance(value, int):
        return replace(case, image_size=value), ()
    if axis == "batch_size":
        return replace(case, batch_size=value), ()
    if axis == "objects":
        return replace(case, objects=value), ()
    if axis == "classes":
        return case, (f"num_classes={value}",)
    if axis == "rois":  # per image and loop; training samples from twice as many proposals
        proposals = (f"rpn.train_proposals.per_image={2 * value}", f"rpn.eval_proposals.per_image={value}")
        return case, (f"rois_per_image={value}", *proposals)
    if axis == "loops" and isinstance(
        value, int
    ):  # one threshold and weight, so that all loops have equally much to do
        return case, tuple(
            f"recursion.{key}={[entry] * value}"
            for key, entry in (("heads", 0), ("iou_thresholds", 0.5), ("loss_weights", 1.0))
        )
    raise ValueError(f"unknown sweep {axis!r}: image_size, batch_size, rois, loops, classes and objects exist")
