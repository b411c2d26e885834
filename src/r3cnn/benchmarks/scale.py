"""``r3cnn bench scale`` and ``loops``: how cost grows with images, RoIs, loops, classes and instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product

from r3cnn.benchmarks.harness import Row
from r3cnn.benchmarks.networks import INFERENCE, TRAINING, Bench, cost_rows, speeds
from r3cnn.benchmarks.workload import Case, pair


def scale_rows(
    bench: Bench, systems: Sequence[str], sweeps: Mapping[str, object]
) -> tuple[list[Row], list[dict[str, object]]]:
    """Every sweep of every system in every case, in training and at inference.

    Args:
        bench: Setting.
        systems: Experiments that are swept.
        sweeps: Values by what is varied, see `varied`; an empty list leaves a sweep out.

    Raises:
        ValueError: For a sweep that is no list.
    """
    rows: list[Row] = []
    details: list[dict[str, object]] = []
    for system, case, (axis, values) in product(systems, bench.cases, sweeps.items()):
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ValueError(f"{axis} must be a list, got {values!r}")
        found, about = sweep_rows(bench, case, system, axis, values) if values else ([], [])
        rows += found
        details += about
    return rows, details


def sweep_rows(
    bench: Bench, case: Case, system: str, axis: str, values: Iterable[object]
) -> tuple[list[Row], list[dict[str, object]]]:
    """Networks that differ in one thing, in turns, each beside the first.

    Raises:
        ValueError: If there are not two different values, or ``axis`` is not known.
    """
    points = {str(value): varied(case, axis, value) for value in values}
    if len(points) < 2:
        raise ValueError(f"{axis} is {list(points)}: two different values at least are needed")
    rows: list[Row] = []
    details: list[dict[str, object]] = []
    for task in (TRAINING, INFERENCE):
        sides = {
            name: (bench.side(system, own, (*bench.own, *overrides)), own) for name, (own, overrides) in points.items()
        }
        turns, found = speeds(task, bench, sides)
        for speed in found[1:]:
            title = f"{task.name}, {case.name}, {system}, {axis}: {speed.name} / {found[0].name}"
            rows += cost_rows(title, turns, speed, found[0])
        details += [{"task": task.name, "system": system, "axis": axis, **asdict(speed)} for speed in found]
    return rows, details


def varied(case: Case, axis: str, value: object) -> tuple[Case, tuple[str, ...]]:
    """The case and the overrides of the experiment with another value of what ``axis`` names.

    Raises:
        ValueError: For an unknown axis, or a value that makes no sense.
    """
    if axis == "image_size":
        return replace(case, image_size=pair(value if isinstance(value, Sequence) else [])), ()
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{axis}: a value is a whole number >= 1, got {value!r}")
    if axis == "batch_size":
        return replace(case, batch_size=value), ()
    if axis == "objects":
        return replace(case, objects=value), ()
    if axis == "classes":
        return replace(case, num_classes=value), (f"num_classes={value}",)
    if axis == "rois":  # per image and loop; training samples them from twice as many proposals
        proposals = (f"rpn.train_proposals.per_image={2 * value}", f"rpn.eval_proposals.per_image={value}")
        return case, (f"rois_per_image={value}", *proposals)
    if axis == "loops":  # one threshold and one weight, so that all loops have equally much to do
        return case, tuple(
            f"recursion.{key}={[entry] * value}"
            for key, entry in (("heads", 0), ("iou_thresholds", 0.5), ("loss_weights", 1.0))
        )
    raise ValueError(f"unknown sweep {axis!r}: image_size, batch_size, rois, loops, classes and objects exist")
