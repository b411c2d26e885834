"""What one loop of the RoI heads saw and made of it."""

from __future__ import annotations

from dataclasses import dataclass

from r3cnn.roi.box_heads import BoxOutput
from r3cnn.roi.training_rois import Samples
from r3cnn.structures import LoopTrace, RoiRows, Rois


@dataclass(frozen=True)
class LoopOutput:
    """What one loop saw and made of it.

    Attributes:
        head: Index of the head that ran.
        offered: RoIs that the loop was given.
        samples: RoIs that the loop saw, S slots per image; labelled in training.
        rows: The same RoIs as N rows, with empty slots left out where that is allowed.
        box: Class logits (N, K + 1) and deltas (N, 4) or (N, 4K) of the rows.
        refined: (B, S) RoIs that the next loop gets.
    """

    head: int
    offered: Rois
    samples: Samples
    rows: RoiRows
    box: BoxOutput
    refined: Rois

    @property
    def trace(self) -> LoopTrace:
        """What became of the RoIs."""
        kept = Rois(self.samples.rois.boxes, self.samples.handed_on)
        return LoopTrace(self.offered, kept, self.refined.boxes)
