"""Backward loop by loop: the gradient of each loop is made, and its memory given up, before the next one begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from r3cnn.roi.losses import weighted_sum


class _KnownGradient(torch.autograd.Function):
    """A value whose gradients with respect to its inputs have been computed already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(gradient * factor.to(gradient.dtype) for gradient in ctx.saved_tensors)


def total_by_loop(
    losses_by_loop: Callable[[Sequence[Tensor]], Iterator[Mapping[str, Tensor]]],
    features: Sequence[Tensor],
    parameters: Sequence[Tensor],
    weights: Mapping[str, float],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum of all losses of all loops, and the losses, with the memory of one loop.

    The loops must be independent of one another but through detached RoIs. A factor on the sum reaches the gradients
    after they are made, so it cannot keep float16 from underflowing. The sum has the gradients that it would
    have had without this, up to the rounding of sums; they reach parameters and features in the usual backward pass, at
    once, so that hooks such as those of distributed training see them once.

    Args:
        losses_by_loop: Called with features; gives the losses of one loop after the other.
        features: Pyramid levels (B, C, H, W).
        parameters: What the loops may learn.
        weights: Factor of each loss.

    Returns:
        The sum, and the detached losses by name.
    """
    leaves = [feature.detach().requires_grad_(feature.requires_grad) for feature in features]
    sources = [*features, *parameters]
    wanted = [place for place, source in enumerate(sources) if source.requires_grad]
    inputs = [[*leaves, *parameters][place] for place in wanted]
    sums: list[Tensor | None] = [None] * len(wanted)
    losses: dict[str, Tensor] = {}
    for found in losses_by_loop(leaves):
        sums = _added(sums, weighted_sum(found, weights), inputs)
        losses |= {name: loss.detach() for name, loss in found.items()}
    known = [(sources[place], gradient) for place, gradient in zip(wanted, sums, strict=True) if gradient is not None]
    value = weighted_sum(losses, weights)
    return _KnownGradient.apply(value, [gradient for _, gradient in known], *(source for source, _ in known)), losses


def _added(sums: Sequence[Tensor | None], total: Tensor, inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """The sums and the gradients of one more loop; nothing else refers to those afterwards, so their memory is free."""
    if not inputs or not total.requires_grad:
        return list(sums)
    with torch.autocast(total.device.type, enabled=False):  # as Lightning runs a backward: each in its forward's dtype
        gradients = torch.autograd.grad(total, inputs, allow_unused=True)
    pairs = zip(sums, gradients, strict=True)
    return [before if new is None else new if before is None else before + new for before, new in pairs]
