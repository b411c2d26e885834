"""What the optional modes of inference cost and give: AP and time of one trained network under many settings."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from r3cnn.batch import Batch
from r3cnn.benchmarks.harness import quartiles, take_turns
from r3cnn.detector import RCNN
from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.evaluation.protocol import Stats
from r3cnn.inference_modes import InferenceModes
from r3cnn.ops.images import normalize_images
from r3cnn.structures import Detections

Clock = Literal["wall", "processor"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True)
class Setting:
    """One way to run the network.

    Attributes:
        curve: Which curve it is a point of.
        label: What tells it from the other points of the curve.
        eval_heads: Head of each loop.
        modes: Early exit, precision, compilation.
    """

    curve: str
    label: str
    eval_heads: tuple[int, ...]
    modes: InferenceModes

    @property
    def name(self) -> str:
        """Curve and label."""
        return f"{self.curve}, {self.label}"


@dataclass(frozen=True)
class Timing:
    """How every batch is timed.

    Attributes:
        repetitions: Rounds in which all settings take turns at a batch.
        warmups: Rounds before them that do not count.
        clock: ``wall``, or ``processor`` for the time of this process on the processor.
        device: Where the network runs.

    Raises:
        ValueError: For an unknown clock.
    """

    repetitions: int
    warmups: int
    clock: Clock
    device: torch.device

    def __post_init__(self) -> None:
        if self.clock not in CLOCKS:
            raise ValueError(f"clock must be one of {tuple(CLOCKS)}, got {self.clock!r}")


@dataclass(frozen=True)
class Subject:
    """The network that is looked at.

    Attributes:
        plain: As it was trained.
        compiled: The same network, compiled; ``plain`` itself where no setting asks for it.
        mean: Per channel, of the images.
        std: Per channel, of the images.
    """

    plain: RCNN
    compiled: RCNN
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def detect(self, setting: Setting, batch: Batch) -> list[Detections]:
        """Objects in every image of a batch that lies on the device."""
        pixels = normalize_images(batch.images, batch.canvas, self.mean, self.std)
        model = self.compiled if setting.modes.compile else self.plain
        model.set_eval_heads(setting.eval_heads)
        replace(setting.modes, compile=False).apply(model)  # compiled once is enough
        with torch.inference_mode():
            return model.detect(pixels, batch.sizes)


def measure(
    subject: Subject, settings: Sequence[Setting], batches: Iterable[Batch], metrics: Sequence[CocoAP], timing: Timing
) -> list[dict[str, object]]:
    """AP and time of every setting, as in ``speed.json``; all of them take turns at every batch.

    Each has ``seconds_per_image``, the ``ratio`` of its time to that of the first setting with the quartiles
    ``ratio_low`` and ``ratio_high``, and the figures of boxes and masks after the last loop.

    Args:
        subject: The network.
        settings: The first one is what the others' times are compared with.
        batches: Images on the host.
        metrics: One for each setting.
        timing: How often and by which clock.
    """
    for metric in metrics:
        metric.start()
    seconds: list[list[float]] = [[] for _ in settings]
    for batch in batches:
        found: dict[str, list[Detections]] = {}
        moved = batch.to(timing.device)

        def run(setting: Setting, moved: Batch = moved, found: dict[str, list[Detections]] = found) -> float:
            found[setting.name] = subject.detect(setting, moved)
            return float(sum(map(len, found[setting.name])))

        calls = {setting.name: partial(run, setting) for setting in settings}
        turns = take_turns(
            calls,
            repetitions=timing.repetitions,
            warmups=timing.warmups,
            device=timing.device,
            clock=CLOCKS[timing.clock],
        )
        for setting, own, metric in zip(settings, seconds, metrics, strict=True):
            own.append(turns.median(setting.name) / len(batch))
            metric.update(batch, [found[setting.name]])
    results = [metric.compute().metrics for metric in metrics]
    return [
        {
            "curve": setting.curve,
            "label": setting.label,
            **_compared(own, seconds[0]),
            "box": result["box"],
            "mask": result["mask"],
        }
        for setting, own, result in zip(settings, seconds, results, strict=True)
    ]


def _compared(own: Sequence[float], first: Sequence[float]) -> Stats:
    """Medians over the batches: seconds per image, and their ratio to the first setting with its quartiles."""
    low, middle, high = quartiles([mine / other for mine, other in zip(own, first, strict=True)])
    return {"seconds_per_image": statistics.median(own), "ratio": middle, "ratio_low": low, "ratio_high": high}
