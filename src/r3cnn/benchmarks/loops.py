"""``r3cnn bench loops``: what one more loop costs, in training and at inference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from r3cnn.benchmarks.cases import Case
from r3cnn.benchmarks.comparisons import MB, Details, Run, Speed, Task, speeds
from r3cnn.benchmarks.counts import measured_peaks
from r3cnn.benchmarks.fits import slope
from r3cnn.benchmarks.inference import TASK as INFERENCE
from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.setting import Bench
from r3cnn.benchmarks.training import training_task


def loop_rows(
    bench: Bench,
    *,
    systems: Sequence[str],
    counts: Sequence[int],
    iou_thresholds: Sequence[float],
    loss_weights: Sequence[float],
) -> tuple[list[Row], Details]:
    """Networks of one head that train with, and evaluate with, more and more loops.

    Args:
        bench: Setting.
        systems: Experiments with one head.
        counts: Numbers of loops, ascending; each is put beside the first.
        iou_thresholds: Of each loop, as many as the largest number.
        loss_weights: Likewise.

    Raises:
        ValueError: If there is nothing to compare, or too few thresholds or weights.
    """
    if len(counts) < 2 or min(counts) < 1 or list(counts) != sorted(set(counts)):
        raise ValueError(f"loops.counts must be two or more numbers >= 1, ascending, got {list(counts)}")
    if min(len(iou_thresholds), len(loss_weights)) < counts[-1]:
        raise ValueError(f"loops.iou_thresholds and loops.loss_weights need {counts[-1]} entries each")
    peaks = measured_peaks(bench.precisions, bench.device)
    rows: list[Row] = []
    details: list[Details] = []
    for system, task, case in product(systems, (training_task(bench.effort.seed), INFERENCE), bench.cases()):
        runs = {str(count): Run(system, case, loop_overrides(count, iou_thresholds, loss_weights)) for count in counts}
        found = speeds(task, bench, runs)
        rows += rows_of(task, case, system, found)
        for each in found:
            figures = each.to_dict(peaks[case.precision])
            details.append({"task": task.name, "loops": int(each.system), **figures, "system": system})
    return rows, {"systems": details}


def loop_overrides(count: int, iou_thresholds: Sequence[float], loss_weights: Sequence[float]) -> tuple[str, ...]:
    """Overrides for a network of one head with ``count`` loops, in training and at inference."""
    return (
        f"recursion.heads={[0] * count}",
        f"recursion.iou_thresholds={list(iou_thresholds[:count])}",
        f"recursion.loss_weights={list(loss_weights[:count])}",
    )


def rows_of(task: Task, case: Case, system: str, found: Sequence[Speed]) -> list[Row]:
    """Each number of loops beside the first, and a straight line through all of them."""
    first = found[0]
    rows: list[Row] = []
    for more in found[1:]:
        name = f"{task.name}, {case.name}, {system}: {more.system} loops / {first.system}"
        flops = more.counts.flops / first.counts.flops
        rows += [
            Row(f"{name}, time ratio beside FLOP ratio", more.seconds / first.seconds, flops, unit="x"),
            Row(f"{name}, time", more.seconds, first.seconds),
            Row(f"{name}, peak memory", more.counts.peak / MB, first.counts.peak / MB, unit="MB"),
        ]
    loops = [float(each.system) for each in found]
    time = slope(loops, [each.seconds / first.seconds for each in found])
    flops = slope(loops, [each.counts.flops / first.counts.flops for each in found])
    name = f"{task.name}, {case.name}, {system}: a further loop, in steps of {first.system}, time beside FLOPs"
    return [*rows, Row(name, time, flops, unit="x")]
