"""``r3cnn bench scale`` and ``loops``: how cost grows with images, RoIs, loops, classes, instances and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

from r3cnn.benchmarks.harness import Row
from r3cnn.benchmarks.networks import INFERENCE, TRAINING, Bench, cost_rows, speeds
from r3cnn.benchmarks.workload import Case


def loop_rows(bench: Bench, systems: Sequence[str], counts: Sequence[int]) -> tuple[list[Row], list[dict[str, object]]]:
    """Networks of one head that train with, and evaluate with, more and more loops."""
    rows: list[Row] = []
    details: list[dict[str, object]] = []
    for system in systems:
        for case in bench.cases:
            found, about = sweep_rows(bench, case, system, "loops", counts)
            rows += found
            details += about
    return rows, details


def scale_rows(bench: Bench, system: str, sweeps: Mapping[str, object]) -> tuple[list[Row], list[dict[str, object]]]:
    """Every sweep in training and at inference, from the case of ``bench``.

    Args:
        bench: Setting.
        system: Experiment that is swept.
        sweeps: Values by what is varied, see `varied`; an empty list leaves a sweep out.

    Raises:
        ValueError: For a sweep that is no list.
    """
    rows: list[Row] = []
    details: list[dict[str, object]] = []
    for axis, values in sweeps.items():
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise ValueError(f"scale.sweeps.{axis} must be a list, got {values!r}")
        found, about = sweep_rows(bench, bench.case, system, axis, values) if values else ([], [])
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
        ValueError: For an unknown axis, or an image size that is no pair.
    """
    if axis == "image_size":
        if not isinstance(value, Sequence) or len(value) != 2:
            raise ValueError(f"image_size: a value is a pair of height and width, got {value!r}")
        return replace(case, image_size=(int(value[0]), int(value[1]))), ()
    number = int(str(value))
    if axis == "batch_size":
        return replace(case, batch_size=number), ()
    if axis == "objects":
        return replace(case, objects=number), ()
    if axis == "classes":
        return replace(case, num_classes=number), (f"num_classes={number}",)
    if axis == "rois":  # per image and loop; training samples them from twice as many proposals
        proposals = (f"rpn.train_proposals.per_image={2 * number}", f"rpn.eval_proposals.per_image={number}")
        return case, (f"rois_per_image={number}", *proposals)
    if axis == "loops":  # one threshold and one weight, so that all loops have equally much to do
        return case, tuple(
            f"recursion.{key}={[entry] * number}"
            for key, entry in (("heads", 0), ("iou_thresholds", 0.5), ("loss_weights", 1.0))
        )
    raise ValueError(f"unknown sweep {axis!r}: image_size, batch_size, rois, loops, classes and objects exist")
