"""``r3cnn bench parts``: where the time of a training step and of inference goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from r3cnn.benchmarks.cases import Case
from r3cnn.benchmarks.comparisons import GFLOP, TORCHVISION, Details
from r3cnn.benchmarks.counts import measured_peaks
from r3cnn.benchmarks.flops import flop_counter
from r3cnn.benchmarks.peer import torchvision_peer
from r3cnn.benchmarks.proposals import impose_on_peer
from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.sections import Sections, seconds_on
from r3cnn.benchmarks.setting import REFERENCE, Bench
from r3cnn.benchmarks.steps import Step
from r3cnn.benchmarks.timing import take_turns
from r3cnn.benchmarks.watched import (
    BACKBONE,
    BACKWARD,
    HEADS,
    MASKS,
    NORMALISATION,
    OPTIMISER,
    PYRAMID,
    RPN,
    our_watched_inference,
    our_watched_training,
    peer_watched_inference,
    peer_watched_training,
)
from r3cnn.benchmarks.workload import Workload

TRAINING, INFERENCE = "training step", "inference, image to RLE"
TOGETHER = "RoI heads together"


@dataclass(frozen=True)
class Split:
    """What the sections of a step took.

    Attributes:
        seconds: Median of each section.
        flops: Operations counted in each section.
    """

    seconds: Mapping[str, float]
    flops: Mapping[str, float]

    @property
    def whole(self) -> float:
        """Seconds of the step."""
        return sum(self.seconds.values())

    @property
    def roi_heads(self) -> float:
        """Seconds of everything that is done with RoIs, without their backward."""
        return sum(seconds for name, seconds in self.seconds.items() if is_of_roi_heads(name))


def is_of_roi_heads(section: str) -> bool:
    """Whether a section belongs to the RoI heads."""
    return section in (HEADS, MASKS) or section.startswith("loop ")


def part_rows(bench: Bench, *, systems: Sequence[str]) -> tuple[list[Row], Details]:
    """Time and share of every part, beside torchvision's where it has the same part, and beside the measured peak.

    Args:
        bench: Setting.
        systems: Experiments whose steps are split.
    """
    peaks = measured_peaks(bench.precisions, bench.device)
    rows: list[Row] = []
    details: Details = {"peak_flops": peaks}
    for case in bench.cases():
        for task in (TRAINING, INFERENCE):
            splits = split_steps(bench, case, task, systems)
            peer = splits.pop(TORCHVISION)
            for system, split in splits.items():
                name = f"{task}, {case.name}: {system}"
                rows += [*share_rows(name, split), *peer_rows(name, split, peer)]
                rows += peak_rows(name, split, peaks[case.precision])
                details[name] = {"seconds": dict(split.seconds), "flops": dict(split.flops)}
    return rows, details


def share_rows(name: str, split: Split) -> list[Row]:
    """Every part beside the whole step, so that the ratio is its share."""
    return [Row(f"{name}, {part} / all", seconds, split.whole) for part, seconds in split.seconds.items()]


def peer_rows(name: str, split: Split, peer: Split) -> list[Row]:
    """Parts that both have. Mask targets are ours of the masks and torchvision's of the rest of the heads."""
    common = (NORMALISATION, BACKBONE, PYRAMID, RPN, BACKWARD, OPTIMISER)
    rows = [
        Row(f"{name} / {TORCHVISION}, {part}", split.seconds[part], peer.seconds[part])
        for part in common
        if part in split.seconds and part in peer.seconds
    ]
    return [*rows, Row(f"{name} / {TORCHVISION}, {TOGETHER}", split.roi_heads, peer.roi_heads)]


def peak_rows(name: str, split: Split, peak: float) -> list[Row]:
    """Operations per second of every part that has any, beside those of a large matrix product."""
    return [
        Row(f"{name}, {part}, share of the peak", flops / split.seconds[part] / GFLOP, peak / GFLOP, unit="GFLOP/s")
        for part, flops in split.flops.items()
        if flops and split.seconds[part] > 0
    ]


def split_steps(bench: Bench, case: Case, task: str, systems: Sequence[str]) -> dict[str, Split]:
    """Steps of our networks and of torchvision's in turns, each split into its sections."""
    workload = bench.draw(case.shape)
    sections = {name: Sections(seconds_on(bench.device)) for name in (*systems, TORCHVISION)}
    calls: dict[str, Step] = {TORCHVISION: watched_peer(bench, case, task, workload, sections[TORCHVISION])}
    for system in systems:
        model = bench.network(system, workload, () if system == REFERENCE else bench.own)
        if task == TRAINING:
            step = our_watched_training(model, workload, case, bench.effort.seed, sections[system])
        else:
            step = our_watched_inference(model, workload, case, sections[system])
        calls[system] = step
    flops = {name: split_operations(calls[name], sections[name]) for name in calls}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    effort = bench.effort
    take_turns(
        {name: recorded(call, sections[name], seconds[name]) for name, call in calls.items()},
        repetitions=effort.repetitions,
        warmups=effort.warmups,
        device=bench.device,
    )
    return {name: Split(medians(seconds[name][effort.warmups :]), flops[name]) for name in calls}


def watched_peer(bench: Bench, case: Case, task: str, workload: Workload, sections: Sections) -> Step:
    """A step of torchvision's network, made from our Mask R-CNN."""
    model = bench.network(REFERENCE, workload)
    peer = torchvision_peer(model, workload)
    impose_on_peer(peer, model, workload, bench.effort.seed)
    if task == TRAINING:
        return peer_watched_training(peer, workload, case, sections)
    return peer_watched_inference(peer, workload, case, sections)


def split_operations(call: Step, sections: Sections) -> dict[str, float]:
    """Counted operations of each section of one call."""
    clock = sections.clock
    with flop_counter() as counter:
        sections.clock = counter.get_total_flops
        call()
    sections.clock = clock
    return dict(sections.spent)


def recorded(call: Step, sections: Sections, records: list[dict[str, float]]) -> Callable[[], float]:
    """The same call, which also notes what its sections took."""

    def run() -> float:
        outcome = call()
        records.append(dict(sections.spent))
        return outcome

    return run


def medians(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median of each section over all records; a section that a record lacks took nothing there."""
    names = dict.fromkeys(name for record in records for name in record)
    return {name: median(record.get(name, 0.0) for record in records) for name in names}
