"""``r3cnn bench parts``: where the time of a training step and of inference goes, beside torchvision's parts."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from functools import wraps

from torch.profiler import ProfilerActivity, profile

from r3cnn.benchmarks.harness import SECTION, Row, compare, section
from r3cnn.benchmarks.networks import (
    BACKWARD,
    INFERENCE,
    OPTIMISER,
    REFERENCE,
    REST,
    TORCHVISION,
    TRAINING,
    Bench,
    Ours,
    Side,
    Step,
    Task,
)
from r3cnn.benchmarks.torchvision import CODES, NORMALISATION, Torchvision
from r3cnn.benchmarks.workload import Case

BACKBONE, PYRAMID, RPN, BOXES, MASKS = "backbone", "pyramid", "RPN", "boxes of all loops", "masks of all loops"
HEADS = "RoI heads"
IN_BOTH = (NORMALISATION, BACKBONE, PYRAMID, RPN, HEADS, BACKWARD, OPTIMISER)
Calls = dict[str, list[tuple[object, str]]]  # methods by the section that they are


def part_rows(bench: Bench, systems: Sequence[str]) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """Share of every part, and time beside torchvision's where it has the same part; and the seconds behind the rows.

    Mask targets are ours of the masks and torchvision's of the rest of the heads, so heads are compared as a whole.
    """
    rows: list[Row] = []
    details: dict[str, dict[str, float]] = {}
    for case in bench.cases:
        for task in (TRAINING, INFERENCE):
            seconds = split_steps(bench, case, task, systems)
            theirs = seconds[TORCHVISION]
            for system in systems:
                title = f"{task.name}, {case.name}: {system}"
                ours = details[title] = seconds[system]
                whole = sum(ours.values()) - ours[BOXES] - ours[MASKS]
                rows += [compare(f"{title}, {part} / all", spent, whole) for part, spent in ours.items()]
                rows += [
                    compare(f"{title} / {TORCHVISION}, {part}", ours[part], theirs[part])
                    for part in IN_BOTH
                    if part in ours and part in theirs
                ]
    return rows, details


def split_steps(bench: Bench, case: Case, task: Task, systems: Sequence[str]) -> dict[str, dict[str, float]]:
    """Median seconds of each section of steps of torchvision's network and of ours, in turns."""
    sides: dict[str, Side] = {TORCHVISION: bench.beside_torchvision(case)[TORCHVISION]}
    sides |= {name: bench.side(name, case, () if name == REFERENCE else bench.own) for name in systems}
    records: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for side in sides.values():
        watch(side)
    calls = {name: task.step(side) for name, side in sides.items()}
    for _ in range(1 + bench.warmups + bench.repetitions):
        for name, call in calls.items():
            records[name].append(split(call))
    return {
        name: {part: statistics.median(record[part] for record in found[1 + bench.warmups :]) for part in found[-1]}
        for name, found in records.items()
    }


def split(call: Step) -> dict[str, float]:
    """Seconds of each section of one call; boxes and masks are also part of the RoI heads, the rest is what is left."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # what its C++ code says on stderr at every start and stop
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        call()
    spent = {
        event.key.removeprefix(SECTION): event.cpu_time_total / 1e6
        for event in profiler.key_averages()
        if event.key.startswith(SECTION)
    }
    spent[REST] -= sum(seconds for name, seconds in spent.items() if name not in (REST, BOXES, MASKS))
    return spent


def watch(side: Side) -> None:
    """Makes sections of what a network calls; changes it in place."""
    for name, calls in (_calls_of_ours(side) if isinstance(side, Ours) else _calls_of_torchvision(side)).items():
        for owner, method in calls:
            _watch(owner, method, name)


def _watch(owner: object, method: str, name: str) -> None:
    own = getattr(owner, method)

    @wraps(own)
    def watched(*args: object, **kwargs: object) -> object:
        with section(name):
            return own(*args, **kwargs)

    setattr(owner, method, watched)


def _calls_of_ours(side: Ours) -> Calls:
    network, heads = side.network, side.network.roi_heads
    return {
        BACKBONE: [(network.backbone, "forward")],
        PYRAMID: [(network.fpn, "forward")],
        RPN: [(network.rpn, "losses"), (network.rpn, "propose")],
        HEADS: [(heads, "losses"), (heads, "detect")],
        BOXES: [(module, "forward") for module in (heads.box_extractor, *heads.box_heads)],
        MASKS: [(heads.mask_branch, "train_on"), (heads.mask_branch, "predict")],
    }


def _calls_of_torchvision(side: Torchvision) -> Calls:
    """What its transform does at the end of inference is pasting; in training it is nothing."""
    network, heads = side.network, side.network.roi_heads
    return {
        NORMALISATION: [(network.transform, "forward")],
        BACKBONE: [(network.backbone.body, "forward")],
        PYRAMID: [(network.backbone.fpn, "forward")],
        RPN: [(network.rpn, "forward")],
        HEADS: [(heads, "forward")],
        BOXES: [(module, "forward") for module in (heads.box_roi_pool, heads.box_head, heads.box_predictor)],
        MASKS: [(module, "forward") for module in (heads.mask_roi_pool, heads.mask_head, heads.mask_predictor)],
        CODES: [(network.transform, "postprocess")],
    }
