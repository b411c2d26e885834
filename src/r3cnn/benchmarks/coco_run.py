"""A model of a whole training run on COCO: what is measured, what is extrapolated from it, what is assumed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from r3cnn.benchmarks.comparisons import Details
from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.setting import REFERENCE
from r3cnn.structures import Size

HOUR, GIB = 3600.0, 2**30


@dataclass(frozen=True)
class CocoRun:
    """What is assumed of the run.

    Attributes:
        images: Of the training set, those that have an object.
        epochs: How often each is seen.
        gpus: Numbers of GPUs.
        efficiency: Speed of one of several GPUs beside that of one alone, in (0, 1].
    """

    images: int
    epochs: int
    gpus: tuple[int, ...]
    efficiency: float

    def __post_init__(self) -> None:
        if min(self.images, self.epochs, *self.gpus) < 1 or not 0 < self.efficiency <= 1:
            raise ValueError(f"coco_run needs numbers >= 1 and an efficiency in (0, 1], got {asdict(self)}")

    def hours(self, batch_size: int, seconds: float, gpus: int) -> float:
        """Hours of all steps, the last one of an epoch as long as the others.

        Args:
            batch_size: Images per GPU and step.
            seconds: Of a step on one GPU.
            gpus: Their number.
        """
        steps = self.epochs * math.ceil(self.images / (batch_size * gpus))
        return steps * seconds / (self.efficiency if gpus > 1 else 1.0) / HOUR


@dataclass(frozen=True)
class MeasuredStep:
    """A training step as ``bench train`` measured it.

    Attributes:
        system: Name of the experiment.
        precision: ``fp32`` or ``bf16``.
        batch_size: Images.
        image_size: (height, width) in pixels.
        seconds: Median time.
        peak_bytes: Memory.
        share_of_peak: Operations per second beside those of a large matrix product.
    """

    system: str
    precision: str
    batch_size: int
    image_size: Size
    seconds: float
    peak_bytes: int
    share_of_peak: float

    @classmethod
    def from_dict(cls, found: Mapping[str, object]) -> MeasuredStep:
        """From an entry of ``systems`` in the output of ``bench train``; other keys are left out."""
        return cls(**{name: found[name] for name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    @property
    def batch(self) -> str:
        """Precision and batch, for the rows."""
        height, width = self.image_size
        return f"{self.precision}, {self.batch_size} x {width}x{height}"


def read_steps(file: Path) -> list[MeasuredStep]:
    """The steps in what ``r3cnn bench train format=json`` put out.

    Raises:
        ValueError: If the file holds something else.
    """
    try:
        systems = json.loads(file.read_text(encoding="utf-8"))["machine"]["measured"]["train"]["systems"]
        return [MeasuredStep.from_dict(system) for system in systems]
    except (ValueError, KeyError, TypeError) as error:
        wanted = "what `r3cnn bench train format=json` puts out is needed"
        raise ValueError(f"from={file}: {wanted} ({type(error).__name__}: {error})") from error


def fastest(steps: Sequence[MeasuredStep]) -> dict[str, MeasuredStep]:
    """Of each system the step with the most images per second."""
    best: dict[str, MeasuredStep] = {}
    for step in steps:
        other = best.get(step.system)
        if other is None or step.batch_size / step.seconds > other.batch_size / other.seconds:
            best[step.system] = step
    return best


def coco_rows(steps: Sequence[MeasuredStep], run: CocoRun, source: str) -> tuple[list[Row], Details]:
    """Hours of every system on every number of GPUs, beside Mask R-CNN's; and where each figure comes from.

    Args:
        steps: Measured steps; of each system the fastest one counts.
        run: What is assumed.
        source: Where the steps come from.

    Raises:
        ValueError: If Mask R-CNN was not measured.
    """
    best = fastest(steps)
    if REFERENCE not in best:
        raise ValueError(f"{source}: {REFERENCE} was not measured, only {sorted(best)}")
    rows, hours = [], {}
    for gpus in run.gpus:
        needed = {name: run.hours(step.batch_size, step.seconds, gpus) for name, step in best.items()}
        title = f"COCO, {run.epochs} epochs on {gpus} device(s), extrapolated"
        rows += [
            Row(f"{title} from {best[name].batch}: {name} / {REFERENCE}", needed[name], needed[REFERENCE], unit="h")
            for name in best
        ]
        hours[f"{gpus} device(s)"] = needed
    measured = {
        name: {**asdict(step), "images_per_second": step.batch_size / step.seconds, "memory_gib": step.peak_bytes / GIB}
        for name, step in best.items()
    }
    assumed = {**asdict(run), "others": "images are loaded as fast as they are needed; no evaluation, no checkpoints"}
    return rows, {"source": source, "measured": measured, "extrapolated_hours": hours, "assumed": assumed}
