"""``r3cnn bench infer``: from images to run-length codes, beside torchvision's and every system beside Mask R-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from r3cnn.benchmarks.cases import Case
from r3cnn.benchmarks.comparisons import Details, Run, Task, beside_torchvision, speeds, system_rows
from r3cnn.benchmarks.counts import measured_peaks
from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.setting import REFERENCE, Bench
from r3cnn.benchmarks.steps import our_inference, peer_inference

TASK = Task("inference, image to RLE", our_inference, peer_inference, {"cpu": 0.85, "cuda": 0.6})
# One image at a time: pairs of systems, and the time ratio that is aimed at (the paper's: 2.1 and 5.5).
ONE_IMAGE = {("r3cnn_naive", REFERENCE): 1.2, ("r3cnn_advanced", "r3cnn_naive"): 2.0}


def inference_rows(bench: Bench, *, systems: Sequence[str], one_image: bool) -> tuple[list[Row], Details]:
    """All comparisons of inference.

    Args:
        bench: Setting.
        systems: Experiments that are put beside Mask R-CNN.
        one_image: Whether to time one image at a time in bf16 as well.
    """
    peaks = measured_peaks(bench.precisions, bench.device)
    rows: list[Row] = []
    details: list[Details] = []
    detections: dict[str, int] = {}
    for case in bench.cases():
        found, outcomes = beside_torchvision(TASK, bench, case)
        detections |= {f"{name}, {case.name}": int(outcome) for name, outcome in outcomes.items()}
        rows += found
        found, about = system_rows(TASK, bench, case, tuple(systems), peaks)
        rows += found
        details += about
    rows += one_image_rows(bench) if one_image else []
    return rows, {"peak_flops": peaks, "detections": detections, "systems": details}


def one_image_rows(bench: Bench) -> list[Row]:
    """One image at a time in bf16."""
    case = Case("bf16", replace(bench.shape, batch_size=1))
    names = {name for pair in ONE_IMAGE for name in pair}
    found = {each.system: each.seconds for each in speeds(TASK, bench, {name: Run(name, case) for name in names})}
    return [
        Row(f"{TASK.name}, one image at a time, {case.name}: {ours} / {peer}", found[ours], found[peer], target)
        for (ours, peer), target in ONE_IMAGE.items()
    ]
