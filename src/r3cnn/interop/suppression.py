"""Non-maximum suppression whose result has a fixed shape, for exported networks.

Boxes come in G groups of N, each with C rows of scores; boxes compete with those of their own group and row alone. What
is kept is a mask of the same shape as the scores.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import nms


class Suppression(Protocol):
    """Anything that decides which boxes stay."""

    def __call__(
        self, boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, limit: int
    ) -> Tensor:
        """Which boxes stay.

        Args:
            boxes: (G, N, 4) with non-negative coordinates.
            scores: (G, C, N).
            iou_threshold: A box is dropped if its IoU with a better one of its group and row is larger than this.
            score_threshold: A box is dropped unless its score is larger than this.
            limit: Best boxes of a group and row that must be told; whether worse ones are is left open.

        Returns:
            (G, C, N) bool.
        """
        ...


def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, limit: int) -> Tensor:
    """`Suppression` by torchvision's operator in float64, as `ops.nms.nms_mask`; all that stay are told.

    Two boxes without area, which nothing suppresses, take part: programs of ``torch.export`` rely on the operator to
    keep at least two.
    """
    rows, places = scores.shape[1], scores.shape[2]
    flat = scores.flatten()
    candidate = (flat > score_threshold).nonzero()[:, 0]
    row = candidate // places  # counts the rows of all groups
    apart = row * (boxes.amax().double() + 1)
    box = boxes.flatten(0, 1)[row // rows * places + candidate % places].double() + apart[:, None]
    extra = torch.arange(2, device=flat.device)
    kept = nms(
        torch.cat([box, box.new_zeros(2, 4)]), torch.cat([flat[candidate], flat.new_zeros(2)]).double(), iou_threshold
    )
    keep = torch.zeros(len(flat) + 2, dtype=torch.bool, device=flat.device)
    keep = keep.index_fill(0, torch.cat([candidate, extra + len(flat)])[kept], True)
    return keep[: len(flat)].view_as(scores)


# As one operator of its own, so that an exporter can put another format's operator in its place.
suppress_as_operator = torch.library.custom_op("r3cnn::suppress", suppress, mutates_args=())


@suppress_as_operator.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, limit: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
