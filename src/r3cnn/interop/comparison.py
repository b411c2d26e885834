"""Whether an exported network finds what the network itself finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r3cnn.structures import Detections

QUANTITIES = ("boxes", "scores", "masks", "mask_scores")
SCORE_SCALE = 100.0  # a hundredth of score is as far away as a pixel
MAX_DISTANCE = 1.0  # beyond it two detections are two, not one that moved


@dataclass(frozen=True)
class Differences:
    """Largest differences between two sets of detections.

    Attributes:
        boxes: Of a coordinate, in pixels of the network input.
        scores: Of a score.
        masks: Of a mask probability.
        mask_scores: Of a score that ranks a mask.
        compared: Detections that both have.
        unpaired: Detections that only one of them has.
    """

    boxes: float = 0.0
    scores: float = 0.0
    masks: float = 0.0
    mask_scores: float = 0.0
    compared: int = 0
    unpaired: int = 0

    @classmethod
    def largest(cls, parts: Iterable[Differences]) -> Differences:
        """Of several images."""
        parts = list(parts)
        found = {name: max((getattr(part, name) for part in parts), default=0.0) for name in QUANTITIES}
        return cls(
            **found, compared=sum(part.compared for part in parts), unpaired=sum(part.unpaired for part in parts)
        )

    def is_within(self, tolerance: Differences) -> bool:
        """Whether no difference is larger than that of ``tolerance``, and no more detections are unpaired."""
        return all(getattr(self, name) <= getattr(tolerance, name) for name in (*QUANTITIES, "unpaired"))

    def __str__(self) -> str:
        return (
            f"boxes {self.boxes:.1g} px, scores {self.scores:.1g}, masks {self.masks:.1g}, "
            f"mask scores {self.mask_scores:.1g}; {self.unpaired} detections of one of them alone"
        )


# Float32 sums in another order, through three loops: some ten times what was measured for the paper's networks.
TOLERANCE = Differences(boxes=0.05, scores=1e-3, masks=1e-2, mask_scores=1e-3)


def differences(found: Mapping[str, Tensor], wanted: Sequence[Detections]) -> Differences:
    """Compares image by image, as sets: equal scores have no order.

    Args:
        found: What `ExportedDetector.forward` gives.
        wanted: What the network gives, image by image.
    """
    return Differences.largest(_of_image(found, image, one) for image, one in enumerate(wanted))


def _of_image(found: Mapping[str, Tensor], image: int, wanted: Detections) -> Differences:
    taken = {name: values[image][found["valid"][image]] for name, values in found.items()}
    total = len(wanted) + len(taken["scores"])
    row, column = _pairs(taken, wanted)
    if not len(row):
        return Differences(unpaired=total)

    largest = {name: float((getattr(wanted, name)[row] - taken[name][column]).abs().amax()) for name in QUANTITIES}
    return Differences(**largest, compared=len(row), unpaired=total - 2 * len(row))


def _pairs(found: Mapping[str, Tensor], wanted: Detections) -> tuple[Tensor, Tensor]:
    """Indices into ``wanted`` and ``found`` of detections that are each other's nearest of the same class."""
    if not len(wanted) or not len(found["scores"]):
        nothing = torch.zeros(0, dtype=torch.int64)
        return nothing, nothing
    boxes = (wanted.boxes[:, None] - found["boxes"][None]).abs().amax(dim=-1)  # (wanted, found)
    scores = (wanted.scores[:, None] - found["scores"][None]).abs() * SCORE_SCALE
    same = wanted.labels[:, None] == found["labels"][None]
    distance = torch.where(same, torch.maximum(boxes, scores), torch.inf)
    column, row = distance.argmin(dim=1), torch.arange(len(wanted))
    mutual = (distance.argmin(dim=0)[column] == row) & (distance[row, column] <= MAX_DISTANCE)
    return row[mutual], column[mutual]
