"""One class score and one mask from those of all loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from r3cnn.schedule import MaskFusion, ScoreFusion


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
    return _fuse_logits(stacked, rule).softmax(dim=-1)


def fuse_masks(logits: Sequence[Tensor], rule: MaskFusion) -> Tensor:
    """Mask probabilities from the logits of each loop, all of them on the same boxes.

    The paper does not say how; its code averages probabilities (``mean_probs``), whatever the rule for the scores.

    Args:
        logits: One (...) tensor per loop.
        rule: ``mean_probs``, ``mean_logits``, ``max`` (element-wise) or ``last``.

    Returns:
        (...) float32 probabilities.
    """
    stacked = torch.stack([loop.float() for loop in logits])
    if rule == "mean_probs":
        return stacked.sigmoid().mean(dim=0)
    return _fuse_logits(stacked, rule).sigmoid()


def _fuse_logits(stacked: Tensor, rule: Literal["mean_logits", "max", "last"]) -> Tensor:
    """(...) from (loops, ...)."""
    if rule == "mean_logits":
        return stacked.mean(dim=0)
    return stacked.amax(dim=0) if rule == "max" else stacked[-1]
