"""``r3cnn bench train``: one training step, ours beside torchvision's and every system beside Mask R-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from r3cnn.benchmarks.cases import Case, Shape
from r3cnn.benchmarks.comparisons import MB, Details, Task, beside_torchvision, system_rows
from r3cnn.benchmarks.counts import measured_peaks
from r3cnn.benchmarks.peak_memory import peak_bytes
from r3cnn.benchmarks.rows import Row, goal
from r3cnn.benchmarks.setting import REFERENCE, Bench
from r3cnn.benchmarks.steps import BACKWARDS, Backward, Step, our_training_step, peer_training_step, whole_backward
from r3cnn.benchmarks.workload import Workload
from r3cnn.detector import RCNN

RECURSIVE = "r3cnn_naive"
MEMORY, MEMORY_SAVED = 1.35, 1.15  # of Mask R-CNN's; the second by other ways to the gradients


def training_task(seed: int, backward: Backward = whole_backward) -> Task:
    """A training step."""

    def ours(model: RCNN, workload: Workload, case: Case) -> Step:
        return our_training_step(model, workload, case, seed, backward)

    return Task("training step", ours, peer_training_step, {"cpu": 1.0, "cuda": 0.8})


def training_rows(
    bench: Bench, *, systems: Sequence[str], memory_shape: Shape, memory_network: Sequence[str]
) -> tuple[list[Row], Details]:
    """All comparisons of a training step.

    Args:
        bench: Setting.
        systems: Experiments that are put beside Mask R-CNN.
        memory_shape: Batch that the memory is compared on; with few pixels RoIs would take most of the memory.
        memory_network: Overrides of the networks for that.
    """
    task = training_task(bench.effort.seed)
    peaks = measured_peaks(bench.precisions, bench.device)
    rows: list[Row] = []
    details: list[Details] = []
    for case in bench.cases():
        rows += beside_torchvision(task, bench, case)[0]
        found, about = system_rows(task, bench, case, tuple(systems), peaks)
        rows += found
        details += about
    for precision in bench.precisions:
        rows += memory_rows(replace(bench, own=(*bench.own, *memory_network)), Case(precision, memory_shape))
    return rows, {"peak_flops": peaks, "systems": details}


def memory_rows(bench: Bench, case: Case) -> list[Row]:
    """Peak memory of R3-CNN beside that of Mask R-CNN, for every way to the gradients."""
    reference = training_memory(bench, case, REFERENCE, whole_backward) / MB
    rows = []
    for name, backward in BACKWARDS.items():
        target = MEMORY if backward is whole_backward else MEMORY_SAVED
        memory = training_memory(bench, case, RECURSIVE, backward) / MB
        title = f"peak training memory, {case.name}, backward={name}: {RECURSIVE} / {REFERENCE}"
        rows.append(goal(title, memory, reference, target, unit="MB"))
    return rows


def training_memory(bench: Bench, case: Case, system: str, backward: Backward) -> int:
    """Most bytes of one training step, weights and momentum included."""
    workload = bench.draw(case.shape)
    model = bench.network(system, workload, bench.own)
    return peak_bytes(training_task(bench.effort.seed, backward).ours(model, workload, case), bench.device)
