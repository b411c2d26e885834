"""The comparisons of ``r3cnn bench``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from r3cnn.benchmarks.peer import torchvision_peer
from r3cnn.benchmarks.steps import (
    imitate_training,
    our_inference,
    our_training_step,
    peer_inference,
    peer_training_step,
)
from r3cnn.benchmarks.timing import Measurement, take_turns
from r3cnn.benchmarks.workload import Workload
from r3cnn.detector import RCNN

Part = Literal["train", "infer"]
OURS, NAIVE, TORCHVISION = "Mask R-CNN", "R3-CNN naive", "torchvision"


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: What is compared.
        ours: Median time of ours.
        peer: Median time of what it is compared with.
        target: Largest ratio that we want; None where the ratio is only told.
        accept: Whether the target is one that the project has to meet.
        unit: Unit of both times.
    """

    name: str
    ours: float
    peer: float
    target: float | None
    accept: bool
    unit: str = "s"

    @property
    def ratio(self) -> float:
        """Our time over the other's: below 1 we are faster."""
        return self.ours / self.peer

    def to_dict(self) -> dict[str, str | float | bool | None]:
        """The row in the form of ``format=json``."""
        return {
            "name": self.name,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "unit": self.unit,
            "target": self.target,
            "accept": self.accept,
        }


@dataclass(frozen=True)
class Effort:
    """How much is run.

    Attributes:
        repetitions: Rounds that count.
        warmups: Rounds before them.
        candidates: Class scores per image that pass the score threshold at inference.
        seed: Of the sampling of RoIs.
    """

    repetitions: int
    warmups: int
    candidates: int
    seed: int


def training_rows(mask_rcnn: RCNN, naive: RCNN, workload: Workload, effort: Effort) -> list[Row]:
    """One training step each of our Mask R-CNN, our R3-CNN and torchvision's Mask R-CNN, in turns.

    Raises:
        FloatingPointError: If a loss is not finite, since the times would then be of something else.
    """
    device = workload.images.device
    for model in (mask_rcnn, naive):
        imitate_training(model, workload, effort.candidates)
    calls = {
        OURS: our_training_step(mask_rcnn, workload, effort.seed),
        TORCHVISION: peer_training_step(torchvision_peer(mask_rcnn, workload), workload),
        NAIVE: our_training_step(naive, workload, effort.seed),
    }
    measured = take_turns(calls, repetitions=effort.repetitions, warmups=effort.warmups, device=device)
    losses = {name: measurement.outcome for name, measurement in measured.items()}
    if not all(map(math.isfinite, losses.values())):
        raise FloatingPointError(f"a loss is not finite: {losses}")
    seconds = {name: measurement.seconds for name, measurement in measured.items()}
    return [
        Row(f"training step: {OURS} / {TORCHVISION}", seconds[OURS], seconds[TORCHVISION], 1.0, True),
        Row(f"training step: {NAIVE} / {OURS}", seconds[NAIVE], seconds[OURS], None, False),
    ]


def inference_rows(mask_rcnn: RCNN, workload: Workload, effort: Effort) -> tuple[list[Row], dict[str, int]]:
    """Images to run-length codes by our Mask R-CNN and torchvision's, in turns; and what each found in the batch."""
    imitate_training(mask_rcnn, workload, effort.candidates)
    peer = torchvision_peer(mask_rcnn, workload)
    calls = {OURS: our_inference(mask_rcnn, workload), TORCHVISION: peer_inference(peer, workload)}
    device = workload.images.device
    measured = take_turns(calls, repetitions=effort.repetitions, warmups=effort.warmups, device=device)
    ours, theirs = measured[OURS], measured[TORCHVISION]
    name = f"inference, image to RLE: {OURS} / {TORCHVISION}"
    return [Row(name, ours.seconds, theirs.seconds, 0.85, True)], _detections(measured)


def _detections(measured: Mapping[str, Measurement]) -> dict[str, int]:
    return {name: int(measurement.outcome) for name, measurement in measured.items()}
