"""One class score from the scores of all loops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from r3cnn.schedule import ScoreFusion


def fuse_scores(logits: Sequence[Tensor], rule: ScoreFusion) -> Tensor:
    """Class probabilities from the logits of each loop.

    The paper averages "the classification values"; its code averages logits (``mean_logits``). The RoI moves between
    loops, so the fused logits belong to different boxes.

    Args:
        logits: One (..., K + 1) tensor per loop.
        rule: ``mean_logits``, ``mean_probs``, ``max`` (element-wise, of logits) or ``last``.

    Returns:
        (..., K + 1) float32 probabilities.
    """
    stacked = torch.stack([loop.float() for loop in logits])  # (loops, ..., K + 1)
    if rule == "mean_probs":
        return stacked.softmax(dim=-1).mean(dim=0)
    fused = {
        "mean_logits": lambda: stacked.mean(dim=0),
        "max": lambda: stacked.amax(dim=0),
        "last": lambda: stacked[-1],
    }
    return fused[rule]().softmax(dim=-1)
