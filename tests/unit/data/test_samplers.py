from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from r3cnn.data.samplers import Dealt, EvalBatchSampler, TrainBatchSampler
from r3cnn.structures import canvas_of

SIZES = np.array([(60, 80)] * 13 + [(80, 60)] * 8)


def train_sampler(**changes):
    return TrainBatchSampler(SIZES, **{"batch_size": 4, "seed": 0} | changes)


def items(batches):
    return [draw.item for batch in batches for draw in batch]


def test_an_epoch_holds_every_image_once():
    batches = list(train_sampler())
    assert sorted(items(batches)) == list(range(21))
    assert len(batches) == len(train_sampler()) == 4 + 2


def test_a_batch_holds_images_of_one_orientation():
    for batch in train_sampler():
        assert len({bool(draw.item < 13) for draw in batch}) == 1


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {}
    for seed, epoch in [(0, 0), (0, 1), (1, 0)]:
        first, second = train_sampler(seed=seed), train_sampler(seed=seed)
        list(second)  # history does not matter
        first.set_epoch(epoch)
        second.set_position(epoch, 0)
        assert list(first) == list(second)
        orders[seed, epoch] = items(first)
        assert {draw.epoch for batch in first for draw in batch} == {epoch}
    assert len({tuple(order) for order in orders.values()}) == 3


def test_a_resumed_epoch_continues_at_its_batch_and_the_next_one_is_whole():
    whole, resumed = train_sampler(), train_sampler()
    whole.set_epoch(3)
    resumed.set_position(3, 2)
    resumed.set_epoch(3)  # what Lightning calls before it iterates
    assert list(resumed) == list(whole)[2:]
    assert len(resumed) == len(whole)
    resumed.set_epoch(4)
    whole.set_epoch(4)
    assert list(resumed) == list(whole)


def test_batches_to_overfit_are_those_of_the_first_epoch_wherever_a_run_is_resumed():
    first, later = train_sampler(), train_sampler()
    later.repeats = True
    later.set_position(3, 2)
    later.set_epoch(3)
    assert list(later) == list(first)[2:]
    later.set_epoch(4)
    assert list(later) == list(first)


def test_a_position_outside_the_epoch_is_refused():
    with pytest.raises(ValueError, match="batch 7: an epoch has 6 batches"):
        train_sampler().set_position(0, 7)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_the_images_without_overlap_in_equally_many_batches(world):
    ranks = [train_sampler(rank=rank, world=world) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(list(rank)) for rank in ranks} == {6 // world}
    counts = Counter(item for rank in ranks for item in items(rank))
    assert max(counts.values()) == 1
    alone = {tuple(batch) for batch in train_sampler()}
    assert all(tuple(batch) in alone for rank in ranks for batch in rank)


def test_what_the_ranks_leave_out_changes_from_epoch_to_epoch():
    left_out = set()
    for epoch in range(6):
        seen = set()
        for rank in range(4):
            sampler = train_sampler(rank=rank, world=4)
            sampler.set_epoch(epoch)
            seen |= set(items(sampler))
        left_out.add(frozenset(range(21)) - seen)
    assert len(left_out) > 1


def test_more_ranks_than_batches_are_refused():
    with pytest.raises(ValueError, match="21 training images make 6 batches of batch_size=4, there are 7 processes"):
        train_sampler(world=7)


SEEN = [[Dealt(4, 1, 2)], [Dealt(3, 2, 1)], [Dealt(1, 3, 4), Dealt(4, 1, 1)], [Dealt(2, 2, 2), Dealt(5, 1, 1)]]


@pytest.mark.parametrize("earlier", SEEN)
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_rest_of_an_epoch_of_other_sizes_holds_every_image_that_was_not_seen(earlier, batch_size, world):
    seen = []
    for number, part in enumerate(earlier):
        for rank in range(part.world):
            sampler = train_sampler(batch_size=part.batch_size, rank=rank, world=part.world)
            sampler.set_position(3, 0, earlier[:number])
            seen += items(list(sampler)[: part.batches])
    ranks = [train_sampler(batch_size=batch_size, rank=rank, world=world) for rank in range(world)]
    for rank in ranks:
        rank.set_position(3, 0, earlier)
    rest = [list(rank) for rank in ranks]
    assert {len(batches) for batches in rest} == {rank.num_left for rank in ranks}
    assert ranks[0].num_left <= len(ranks[0])
    counts = Counter([*seen, *(item for batches in rest for item in items(batches))])
    assert set(counts.values()) == {1}
    assert len(counts) == 21 or (batch_size == 1 and len(counts) > 21 - world)
    for batch in (batch for batches in rest for batch in batches):
        assert len(batch) <= batch_size
        assert len({bool(draw.item < 13) for draw in batch}) == 1
        assert {draw.epoch for draw in batch} == {3}
    ranks[0].set_position(3, 1, earlier)  # resumed once more with the same sizes
    assert list(ranks[0]) == rest[0][1:]
    ranks[0].set_epoch(4)
    whole = train_sampler(batch_size=batch_size, world=world)
    whole.set_epoch(4)
    assert list(ranks[0]) == list(whole)


def test_a_rest_of_nearly_a_whole_epoch_has_no_more_batches_than_that():
    sampler = train_sampler(batch_size=5, world=2)  # five batches, of which one rank has two
    sampler.set_position(0, 0, [Dealt(1, 1, 1)])
    assert sampler.num_left == len(sampler) == 2


EVAL_SIZES = [(60, 80), (80, 60), (64, 70), (60, 96), (90, 60), (10, 10), (33, 65)]


def test_an_evaluation_batch_holds_one_canvas_in_data_set_order():
    batches = [[draw.item for draw in batch] for batch in EvalBatchSampler(EVAL_SIZES, batch_size=3)]
    assert batches == [[0, 2, 3], [1, 4], [5], [6]]
    for batch in batches:
        assert len({canvas_of(EVAL_SIZES[item]) for item in batch}) == 1


def test_a_rank_that_no_evaluation_batch_is_left_for_repeats_one_of_another_rank():
    ranks = [list(EvalBatchSampler(EVAL_SIZES, batch_size=3, rank=rank, world=6)) for rank in range(6)]
    assert {len(rank) for rank in ranks} == {1}
    assert [items(rank) for rank in ranks] == [[0, 2, 3], [1, 4], [5], [6], [6], [6]]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_evaluation_batches_are_dealt_out_whole(world):
    ranks = [EvalBatchSampler(EVAL_SIZES, batch_size=3, rank=rank, world=world) for rank in range(world)]
    alone = list(EvalBatchSampler(EVAL_SIZES, batch_size=3))
    dealt = {i * world + rank: batch for rank, sampler in enumerate(ranks) for i, batch in enumerate(sampler)}
    assert [dealt[i] for i in range(len(alone))] == alone
    assert sum(len(sampler) for sampler in ranks) == len(alone)


@pytest.mark.parametrize(("limit", "number"), [(0, 0), (1, 1), (3, 3), (9, 4), (0.25, 1), (0.8, 3), (1.0, 4)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_limit_is_that_of_all_ranks_together(limit, number, world):
    alone = list(EvalBatchSampler(EVAL_SIZES, batch_size=3))
    ranks = [EvalBatchSampler(EVAL_SIZES, batch_size=3, rank=r, world=world, limit=limit) for r in range(world)]
    dealt = {
        i * world + r: batch for r, rank in enumerate(ranks) if not rank.is_stand_in for i, batch in enumerate(rank)
    }
    assert [dealt[i] for i in sorted(dealt)] == alone[:number]
    assert {rank.total for rank in ranks} == {number}


def test_a_share_of_less_than_one_batch_is_refused():
    with pytest.raises(
        ValueError, match=r"limit_val_batches is 0\.2 of 4 batches, which is none: limit_val_batches=1 uses one"
    ):
        EvalBatchSampler(EVAL_SIZES, batch_size=3, limit=0.2)
