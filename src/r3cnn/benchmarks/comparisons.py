"""Whole networks side by side: ours beside torchvision's, and every system beside our Mask R-CNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from torchvision.models.detection import MaskRCNN

from r3cnn.benchmarks.cases import Case, Precision
from r3cnn.benchmarks.counts import Counts, counted
from r3cnn.benchmarks.peer import torchvision_peer
from r3cnn.benchmarks.proposals import impose_on_peer
from r3cnn.benchmarks.rows import Row, goal
from r3cnn.benchmarks.setting import REFERENCE, Bench
from r3cnn.benchmarks.steps import Step
from r3cnn.benchmarks.timing import Measurement, take_turns
from r3cnn.benchmarks.workload import Workload
from r3cnn.detector import RCNN

TORCHVISION = "torchvision"
TIME_OVER_FLOPS = 1.1
MB, GFLOP = 1e6, 1e9
Details = dict[str, object]


@dataclass(frozen=True)
class Task:
    """What is timed.

    Attributes:
        name: For the rows.
        ours: Makes the call for a network of ours.
        peer: Makes the call for torchvision's.
        targets: Largest ratio of the two times, by the kind of device.
    """

    name: str
    ours: Callable[[RCNN, Workload, Case], Step]
    peer: Callable[[MaskRCNN, Workload, Case], Step]
    targets: Mapping[str, float]


@dataclass(frozen=True)
class Speed:
    """How one system did in one case.

    Attributes:
        system: Name of the run, that of its experiment unless several are compared.
        case: What it ran on.
        seconds: Median time of a step.
        counts: Operations and memory of a step.
        outcome: What the step returned: the loss, or the number of detections.
    """

    system: str
    case: Case
    seconds: float
    counts: Counts
    outcome: float

    @property
    def images_per_second(self) -> float:
        """Images of the batch over the time of a step."""
        return self.case.shape.batch_size / self.seconds

    def to_dict(self, peak: float) -> Details:
        """For ``format=json``; ``peak`` is what the machine could do, in FLOP/s."""
        return {
            "system": self.system,
            "precision": self.case.precision,
            **asdict(self.case.shape),
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "flops": self.counts.flops,
            "peak_bytes": self.counts.peak,
            "share_of_peak": self.counts.flops / self.seconds / peak,
            "outcome": self.outcome,
        }


def beside_torchvision(task: Task, bench: Bench, case: Case) -> tuple[list[Row], dict[str, float]]:
    """Our Mask R-CNN and torchvision's in turns; and what each step returned."""
    workload = bench.draw(case.shape)
    model = bench.network(REFERENCE, workload)
    peer = torchvision_peer(model, workload)
    impose_on_peer(peer, model, workload, bench.effort.seed)
    calls = {REFERENCE: task.ours(model, workload, case), TORCHVISION: task.peer(peer, workload, case)}
    measured = timed(calls, bench)
    target = task.targets[bench.device.type]
    name = f"{task.name}, {case.name}: {REFERENCE} / {TORCHVISION}"
    row = goal(name, measured[REFERENCE].seconds, measured[TORCHVISION].seconds, target)
    return [row], {name: measurement.outcome for name, measurement in measured.items()}


@dataclass(frozen=True)
class Run:
    """A network and what it runs on.

    Attributes:
        experiment: Name of its configuration.
        case: Precision and batch.
        overrides: Of the experiment.
    """

    experiment: str
    case: Case
    overrides: tuple[str, ...] = ()


def speeds(task: Task, bench: Bench, runs: Mapping[str, Run]) -> list[Speed]:
    """Networks in turns, after one step of each in which operations and memory are counted.

    Args:
        task: What is timed.
        bench: Setting.
        runs: Networks by the name that their outcome gets.
    """
    calls, counts = {}, {}
    for name, run in runs.items():
        workload = bench.draw(run.case.shape)
        model = bench.network(run.experiment, workload, (*bench.own, *run.overrides))
        calls[name] = task.ours(model, workload, run.case)
        counts[name] = counted(calls[name], bench.device)
    measured = timed(calls, bench)
    return [
        Speed(name, run.case, measured[name].seconds, counts[name], measured[name].outcome)
        for name, run in runs.items()
    ]


def timed(calls: Mapping[str, Step], bench: Bench) -> dict[str, Measurement]:
    """The calls in turns, as often as the setting says."""
    effort = bench.effort
    return take_turns(calls, repetitions=effort.repetitions, warmups=effort.warmups, device=bench.device)


def beside_reference(task: Task, bench: Bench, case: Case, system: str) -> tuple[Speed, Speed]:
    """A system and our Mask R-CNN, in turns; the other networks are not in memory meanwhile."""
    ours, reference = speeds(task, bench, {name: Run(name, case) for name in (system, REFERENCE)})
    return ours, reference


def cost_rows(task: Task, ours: Speed, reference: Speed) -> list[Row]:
    """Time beside operations, images per second, memory, of a system and of our Mask R-CNN."""
    name = f"{task.name}, {ours.case.name}: {ours.system} / {reference.system}"
    times, operations = ours.seconds / reference.seconds, ours.counts.flops / reference.counts.flops
    memory = (ours.counts.peak / MB, reference.counts.peak / MB)
    return [
        goal(f"{name}, time ratio beside FLOP ratio", times, operations, TIME_OVER_FLOPS, unit="x"),
        Row(f"{name}, speed", ours.images_per_second, reference.images_per_second, unit="images/s"),
        Row(f"{name}, operations", ours.counts.flops / GFLOP, reference.counts.flops / GFLOP, unit="GFLOP"),
        Row(f"{name}, peak memory", *memory, unit="MB"),
    ]


def floor_rows(task: Task, speed: Speed, peaks: Mapping[Precision, float]) -> list[Row]:
    """The time of a system beside what its operations would take at the measured peak; its share of that peak."""
    peak = peaks[speed.case.precision]
    name = f"{task.name}, {speed.case.name}: {speed.system}"
    return [
        Row(f"{name} / floor at the measured peak", speed.seconds, speed.counts.flops / peak),
        Row(f"{name}, share of the peak", speed.counts.flops / speed.seconds / GFLOP, peak / GFLOP, unit="GFLOP/s"),
    ]


def system_rows(
    task: Task, bench: Bench, case: Case, systems: tuple[str, ...], peaks: Mapping[Precision, float]
) -> tuple[list[Row], list[Details]]:
    """Every system beside our Mask R-CNN, one after the other; and the figures behind the rows."""
    rows: list[Row] = []
    details: list[Details] = []
    reference: Speed | None = None
    for system in systems:
        ours, reference = beside_reference(task, bench, case, system)
        rows += [*cost_rows(task, ours, reference), *floor_rows(task, ours, peaks)]
        details.append(ours.to_dict(peaks[case.precision]))
    if reference is not None:
        rows += floor_rows(task, reference, peaks)
        details.append(reference.to_dict(peaks[case.precision]))
    return rows, details
