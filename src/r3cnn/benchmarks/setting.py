"""What the benchmarks of whole networks are given: networks, batches, and how much of both to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from r3cnn.benchmarks.cases import Case, Effort, Precision, Shape
from r3cnn.benchmarks.proposals import impose_proposals
from r3cnn.benchmarks.steps import imitate_training
from r3cnn.benchmarks.workload import Workload, draw_workload
from r3cnn.detector import RCNN

REFERENCE = "mask_rcnn"


class NetworkFactory(Protocol):
    """Builds networks."""

    def __call__(self, experiment: str, overrides: Sequence[str]) -> RCNN:
        """New random weights, a function of the seed, on the CPU."""
        ...


@dataclass(frozen=True)
class Bench:
    """What every part is given.

    Attributes:
        build: Makes networks by the name of their experiment.
        device: Where everything runs.
        shape: Of a batch, where a part does not ask for another one.
        mean: Of each channel, in [0, 255].
        std: Of each channel, in [0, 255].
        effort: How much is run.
        precisions: Those asked for.
        batch_sizes: Those asked for.
        own: Overrides of networks that are compared among themselves, not with torchvision's.
    """

    build: NetworkFactory
    device: torch.device
    shape: Shape
    mean: tuple[float, ...]
    std: tuple[float, ...]
    effort: Effort
    precisions: tuple[Precision, ...]
    batch_sizes: tuple[int, ...]
    own: tuple[str, ...]

    def __post_init__(self) -> None:
        self.cases()  # which checks them

    def cases(self) -> list[Case]:
        """Every precision with every batch size."""
        shapes = [replace(self.shape, batch_size=images) for images in self.batch_sizes]
        return [Case(precision, shape) for precision in self.precisions for shape in shapes]

    def draw(self, shape: Shape) -> Workload:
        """A batch; the same one for the same shape."""
        return draw_workload(
            batch_size=shape.batch_size,
            size=shape.image_size,
            objects=shape.objects,
            num_classes=shape.num_classes,
            mean=self.mean,
            std=self.std,
            seed=self.effort.seed,
            device=self.device,
        )

    def network(self, experiment: str, workload: Workload, overrides: Sequence[str] = ()) -> RCNN:
        """A new network that has as much to do as a trained one: equal RoIs and detections, whatever the system."""
        model = self.build(experiment, overrides).to(self.device)
        impose_proposals(model, workload, self.effort.seed)
        imitate_training(model, workload, self.effort.candidates)
        return model
