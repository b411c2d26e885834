"""Weighted sums of rows against torch's own, values and gradients."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from r3cnn.ops.gather import weighted_gather


def inputs(*, num_taps: int = 60, num_sums: int = 12) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A table with rows that nobody takes, and sums of 0 to many taps, also at both ends."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    index = torch.randint(1, 8, (num_taps,), generator=generator, dtype=torch.int32)
    weights = torch.randn(num_taps, generator=generator, dtype=torch.float64)
    starts = torch.randint(0, num_taps + 1, (num_sums,), generator=generator, dtype=torch.int32).sort().values
    starts[:2], starts[-1] = 0, num_taps
    return table, index, weights, starts


def test_values_and_gradients_are_those_of_torch() -> None:
    table, index, weights, starts = inputs()
    found = []
    for ours in (True, False):
        rows, factors = table.clone().requires_grad_(), weights.clone().requires_grad_()
        if ours:
            sums = weighted_gather(rows, index, factors, starts)
        else:
            sums = F.embedding_bag(index, rows, starts, mode="sum", per_sample_weights=factors)
        sums.sin().sum().backward()
        found.append((sums, rows.grad, factors.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_no_taps_at_all_give_zeros_and_a_zero_gradient() -> None:
    table, index, weights, starts = inputs(num_taps=0)
    table.requires_grad_()
    sums = weighted_gather(table, index, weights, starts)
    assert sums.shape == (12, 4)
    assert not sums.any()
    sums.sum().backward()
    assert table.grad is not None
    assert not table.grad.any()


def test_a_table_without_gradient_leaves_that_of_the_weights() -> None:
    table, index, weights, starts = inputs()
    weights.requires_grad_()
    weighted_gather(table, index, weights, starts).sum().backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, table[index.long()].sum(1))


def test_the_sums_may_be_changed_in_place() -> None:
    table, index, weights, starts = inputs()
    expected, changed = (table.clone().requires_grad_() for _ in range(2))
    weighted_gather(expected, index, weights, starts).relu().sum().backward()
    weighted_gather(changed, index, weights, starts).view(-1, 2).relu_().sum().backward()
    assert expected.grad is not None
    assert changed.grad is not None
    assert torch.equal(changed.grad, expected.grad)
