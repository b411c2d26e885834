"""Sampling: shares, order, empty slots, reproducibility, fairness."""

from __future__ import annotations

import pytest
import torch

from r3cnn.ops.sampling import BalancedSampler


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_positives_come_first_and_do_not_exceed_their_share() -> None:
    positive = torch.zeros(2, 100, dtype=torch.bool)
    positive[:, ::2] = True
    sampled = BalancedSampler(40, 0.25)(positive, ~positive, generator())
    assert sampled.index.shape == (2, 40)
    assert sampled.positive.sum(1).tolist() == [10, 10]
    assert sampled.positive[:, :10].all()
    assert sampled.valid.all()
    for row, is_positive in zip(sampled.index, sampled.positive, strict=True):
        assert (row[is_positive] % 2 == 0).all()
        assert (row[~is_positive] % 2 == 1).all()
        assert len(row.unique()) == 40


def test_negatives_fill_up_where_positives_are_few() -> None:
    positive = torch.zeros(1, 50, dtype=torch.bool)
    positive[0, 7] = True
    sampled = BalancedSampler(20, 0.5)(positive, ~positive, generator())
    assert sampled.positive.sum() == 1
    assert sampled.valid.sum() == 20
    assert sampled.index[0, 0] == 7


def test_slots_stay_empty_when_there_is_nothing_left() -> None:
    positive = torch.tensor([[True, False, False, False]])
    negative = torch.tensor([[False, False, True, False]])
    sampled = BalancedSampler(4, 0.5)(positive, negative, generator())
    assert sampled.index[0, :2].tolist() == [0, 2]
    assert sampled.valid.tolist() == [[True, True, False, False]]


def test_the_same_generator_state_gives_the_same_sample() -> None:
    positive = torch.rand(1, 200) < 0.5
    sampler = BalancedSampler(20, 0.5)
    first, second, other = (sampler(positive, ~positive, generator(seed)).index for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_every_positive_has_the_same_chance() -> None:
    positive = torch.ones(2000, 10, dtype=torch.bool)
    sampled = BalancedSampler(5, 1.0)(positive, ~positive, generator())
    share = torch.bincount(sampled.index.flatten(), minlength=10) / 2000
    torch.testing.assert_close(share, torch.full((10,), 0.5), atol=0.05, rtol=0)


def test_no_box_at_all_gives_no_slot() -> None:
    nothing = torch.zeros(2, 0, dtype=torch.bool)
    assert BalancedSampler(5, 0.5)(nothing, nothing, generator()).index.shape == (2, 0)


@pytest.mark.parametrize(("count", "fraction"), [(0, 0.5), (10, 0.0), (10, 1.5)])
def test_impossible_settings_are_refused(count: int, fraction: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        BalancedSampler(count, fraction)
