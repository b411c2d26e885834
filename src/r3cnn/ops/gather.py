"""Weighted sums of rows of a table, with a gradient that is a gather as well."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def weighted_gather(table: Tensor, index: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
    """``F.embedding_bag(…, mode="sum")``, whose gradient for the table is two to three times as fast on a CPU.

    torch adds to one row of the gradient at a time; here the taps are sorted by row, so each row of the gradient is a
    weighted sum of rows of the output's gradient (experiments/LOG.md); equal up to the rounding of the sums.

    Args:
        table: (R, C) rows, float.
        index: (T,) int32 row of each tap.
        weights: (T,) of the table's dtype, weight of each tap.
        starts: (N,) int32, ascending from 0, first tap of each sum; a sum ends where the next one starts.

    Returns:
        (N, C) sums, 0 for a sum without taps.
    """
    sums = F.embedding_bag(index, table.detach(), starts, mode="sum", per_sample_weights=weights)
    if not (table.requires_grad and torch.is_grad_enabled()):
        return sums
    return _GradientForTable.apply(sums, table, index, weights.detach(), starts)


class _GradientForTable(torch.autograd.Function):
    """The identity of ``sums``, through which the table of `weighted_gather` gets its gradient."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor, table: Tensor, index: Tensor, weights: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(index, weights, starts)
        ctx.num_rows = len(table)
        ctx.mark_dirty(sums)  # nobody else has it, and a view could not be changed in place
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        index, weights, starts = ctx.saved_tensors
        row, order = index.sort(stable=True)
        rows = torch.arange(ctx.num_rows, device=row.device, dtype=row.dtype)
        first = torch.searchsorted(row, rows, out_int32=True)
        counts = starts.diff(append=starts.new_tensor([len(index)]))
        of_tap = torch.arange(len(starts), device=row.device, dtype=row.dtype)
        of_tap = of_tap.repeat_interleave(counts, output_size=len(index))
        for_table = F.embedding_bag(
            of_tap[order], grad.contiguous(), first, mode="sum", per_sample_weights=weights[order]
        )
        return grad, for_table, None, None, None
