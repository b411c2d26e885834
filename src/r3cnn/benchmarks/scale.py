"""``r3cnn bench scale``: how cost grows with images, RoIs, loops, classes, instances, ranks; a model of a COCO run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from r3cnn.benchmarks.cases import Case, Shape
from r3cnn.benchmarks.coco_run import CocoRun, MeasuredStep, coco_rows, read_steps
from r3cnn.benchmarks.comparisons import Details, Run, Speed, Task, speeds
from r3cnn.benchmarks.counts import measured_peaks
from r3cnn.benchmarks.fits import exponent
from r3cnn.benchmarks.inference import TASK as INFERENCE
from r3cnn.benchmarks.ranks import RankJob, seconds_by_ranks
from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.setting import REFERENCE, Bench
from r3cnn.benchmarks.training import training_task
from r3cnn.structures import Size


@dataclass(frozen=True)
class Sweeps:
    """What is varied, one thing at a time from the batch of the setting; an empty list leaves a sweep out.

    Attributes:
        image_size: (height, width) in pixels.
        batch_size: Images.
        rois: Per image and loop; training gets twice as many proposals.
        loops: Of the one head.
        classes: K.
        objects: Ground truths per image.
        ranks: Processes with a batch each.
    """

    image_size: Sequence[Size]
    batch_size: Sequence[int]
    rois: Sequence[int]
    loops: Sequence[int]
    classes: Sequence[int]
    objects: Sequence[int]
    ranks: Sequence[int]

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if len(values) > 0 and len({str(value) for value in values}) < 2:
                raise ValueError(
                    f"scale.sweeps.{name} is {list(values)}: none, or two different sizes at least are needed"
                )


@dataclass(frozen=True)
class Point:
    """One network and batch of a sweep.

    Attributes:
        size: How large it is on the axis of the sweep.
        shape: Of the batch.
        overrides: Of the experiment.
    """

    size: int
    shape: Shape
    overrides: tuple[str, ...] = ()


def points_of(sweeps: Sweeps, shape: Shape) -> dict[str, list[Point]]:
    """The points of every sweep that is not left out, by the name of its axis."""
    axes = {
        "pixels": [Point(size[0] * size[1], replace(shape, image_size=size)) for size in sweeps.image_size],
        "images": [Point(images, replace(shape, batch_size=images)) for images in sweeps.batch_size],
        "RoIs": [Point(rois, shape, roi_overrides(rois)) for rois in sweeps.rois],
        "loops": [Point(loops, shape, loop_overrides(loops)) for loops in sweeps.loops],
        "classes": [
            Point(classes, replace(shape, num_classes=classes), (f"num_classes={classes}",))
            for classes in sweeps.classes
        ],
        "instances": [Point(objects, replace(shape, objects=objects)) for objects in sweeps.objects],
    }
    return {name: points for name, points in axes.items() if points}


def roi_overrides(rois: int) -> tuple[str, ...]:
    """Overrides for so many RoIs in every loop, in training and at inference."""
    proposals = (f"rpn.train_proposals.per_image={2 * rois}", f"rpn.eval_proposals.per_image={rois}")
    return (f"rois_per_image={rois}", *proposals)


def loop_overrides(loops: int) -> tuple[str, ...]:
    """Overrides for so many loops with one threshold, so that all of them have equally much to do."""
    heads, ones = [0] * loops, [1.0] * loops
    return (
        f"recursion.heads={heads}",
        f"recursion.iou_thresholds={[0.5] * loops}",
        f"recursion.loss_weights={ones}",
    )


def scale_rows(
    bench: Bench, *, system: str, sweeps: Sweeps, coco_run: CocoRun, steps_file: Path | None
) -> tuple[list[Row], Details]:
    """Every sweep in training and at inference, ranks in training, and the model of a COCO run.

    Args:
        bench: Setting; its first precision counts, and its batch is what all sweeps start from.
        system: Experiment that is swept.
        sweeps: What is varied.
        coco_run: What is assumed of the run on COCO.
        steps_file: Output of ``bench train`` to extrapolate from; None: from steps measured here.
    """
    case = bench.cases()[0]
    task = training_task(bench.effort.seed)
    rows: list[Row] = []
    for axis, points in points_of(sweeps, case.shape).items():
        for each in (task, INFERENCE):
            rows += sweep_rows(each, axis, points, sweep(each, bench, case, system, points))
    rows += rank_rows(bench, case, system, sweeps.ranks)
    steps, source = coco_steps(bench, case, task, system, steps_file)
    found, about = coco_rows(steps, coco_run, source)
    return [*rows, *found], {"coco_run": about}


def sweep(task: Task, bench: Bench, case: Case, system: str, points: Sequence[Point]) -> list[Speed]:
    """One step of every point, in turns."""
    runs = {str(point.size): Run(system, replace(case, shape=point.shape), point.overrides) for point in points}
    return speeds(task, bench, runs)


def sweep_rows(task: Task, axis: str, points: Sequence[Point], found: Sequence[Speed]) -> list[Row]:
    """Every point beside the first, and with what power of the size time and operations grow."""
    name = f"{task.name}, {axis}"
    first = found[0]
    rows = [
        Row(f"{name}: {point.size} / {points[0].size}", speed.seconds, first.seconds)
        for point, speed in zip(points[1:], found[1:], strict=True)
    ]
    sizes = [float(point.size) for point in points]
    time = exponent(sizes, [speed.seconds for speed in found])
    flops = exponent(sizes, [float(speed.counts.flops) for speed in found])
    return [*rows, Row(f"{name}: exponent of time beside that of FLOPs", time, flops, unit="power")]


def rank_rows(bench: Bench, case: Case, system: str, ranks: Sequence[int]) -> list[Row]:
    """A training step of every number of ranks beside that of the first; each rank has a batch of its own."""
    if not ranks:
        return []
    workload = replace(bench, device=torch.device("cpu")).draw(case.shape)
    threads = max(1, torch.get_num_threads() // max(ranks))
    job = RankJob(bench.build(system, bench.own), workload, case, bench.effort, bench.device.type, threads)
    seconds = seconds_by_ranks(job, ranks)
    name = f"training step, ranks of {threads} thread(s) with a batch each"
    return [Row(f"{name}: {count} / {ranks[0]}", seconds[count], seconds[ranks[0]]) for count in ranks[1:]]


def coco_steps(
    bench: Bench, case: Case, task: Task, system: str, steps_file: Path | None
) -> tuple[list[MeasuredStep], str]:
    """Steps to extrapolate a COCO run from, and where they come from."""
    if steps_file is not None:
        return read_steps(steps_file), str(steps_file)
    peak = measured_peaks((case.precision,), bench.device)[case.precision]
    found = speeds(task, bench, {name: Run(name, case) for name in dict.fromkeys((REFERENCE, system))})
    return [MeasuredStep.from_dict(speed.to_dict(peak)) for speed in found], f"this run, {case.name}"
