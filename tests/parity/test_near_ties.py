from __future__ import annotations

import pytest
import torch
from near_ties import Candidates, candidates, unexplained
from torch import Tensor
from torchvision.ops import batched_nms

SCORE, PIXELS = 1e-3, 0.05
NMS, ABOVE, LIMIT = 0.5, 0.2, 12


def scene(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crowded boxes of two groups, coarse enough for equal scores and for IoUs on the threshold."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 7, (40, 2), generator=random) * 3.0
    sizes = torch.randint(2, 6, (40, 2), generator=random) * 3.0
    scores = torch.randint(1, 30, (40,), generator=random) / 30
    return torch.cat([corners, corners + sizes], dim=1), scores, torch.randint(0, 2, (40,), generator=random)


def outcome_of(boxes: Tensor, scores: Tensor, groups: Tensor, score: float, pixels: float) -> Candidates:
    margins, off = torch.full_like(scores, score), torch.full_like(scores, pixels)
    return candidates(boxes, scores, groups, margins, off).above(ABOVE).nms(NMS).top(LIMIT)


def kept(boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
    """(N,) bool by torchvision's NMS."""
    rows = batched_nms(boxes, scores, groups, NMS)
    rows = rows[scores[rows] > ABOVE][:LIMIT]
    return torch.zeros(len(boxes), dtype=torch.bool).index_fill(0, rows, True)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_rounding_does_the_outcome_lies_between_sure_and_possible(seed: int) -> None:
    boxes, scores, groups = scene(seed)
    outcome = outcome_of(boxes, scores, groups, SCORE, PIXELS)
    random = torch.Generator().manual_seed(seed)
    results = []
    for _ in range(50):
        moved = boxes + (2 * torch.rand(boxes.shape, generator=random) - 1) * PIXELS
        results.append(kept(moved, scores + (2 * torch.rand(scores.shape, generator=random) - 1) * SCORE, groups))
    assert all((outcome.sure <= result).all() and (result <= outcome.possible).all() for result in results)
    assert len({tuple(result.tolist()) for result in results}) == 1 or (outcome.sure != outcome.possible).any()


@pytest.mark.parametrize("seed", range(20))
def test_without_a_close_decision_it_is_greedy_nms(seed: int) -> None:
    boxes, scores, groups = scene(seed)
    random = torch.Generator().manual_seed(seed)
    boxes, scores = boxes + torch.rand(boxes.shape, generator=random), torch.rand(scores.shape, generator=random)
    outcome = outcome_of(boxes, scores, groups, 1e-9, 0.0)
    assert torch.equal(outcome.sure, outcome.possible)
    assert torch.equal(outcome.sure, kept(boxes, scores, groups))


def test_rows_that_no_rounding_explains_are_named_on_both_sides() -> None:
    boxes, scores = torch.tensor([[0.0, 0, 9, 9], [20, 20, 29, 29], [40, 40, 49, 49]]), torch.tensor([0.9, 0.8, 0.7])
    groups = torch.zeros(3, dtype=torch.int64)
    outcome = outcome_of(boxes, scores, groups, SCORE, PIXELS)
    moved = boxes + torch.tensor([[0.04], [0.2], [0.0]])
    assert unexplained(outcome, boxes, scores, groups) == ([], [])
    assert unexplained(outcome, moved, scores, groups) == ([1], [1])
    assert unexplained(outcome, boxes, scores, groups + 1) == ([0, 1, 2], [0, 1, 2])
    assert unexplained(outcome, boxes[:2], scores[:2], groups[:2]) == ([], [2])
    twice = torch.tensor([0, 0, 1, 2])
    assert unexplained(outcome, boxes[twice], scores[twice], groups[twice]) == ([1], [])
