"""Non-maximum suppression of fixed shapes."""

from __future__ import annotations

import torch
from torchvision.ops import nms

from r3cnn.interop.suppression import suppress, suppress_as_operator


def test_groups_and_rows_do_not_compete() -> None:
    box = [[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [50.0, 50.0, 60.0, 60.0]]
    boxes = torch.tensor([box, box])
    scores = torch.tensor([[[0.9, 0.8, 0.7], [0.3, 0.6, 0.05]], [[0.2, 0.2, 0.2], [0.0, 0.1, 0.0]]])
    kept = suppress(boxes, scores, 0.5, 0.1, 3)
    assert kept.int().tolist() == [[[1, 0, 1], [0, 1, 0]], [[1, 0, 1], [0, 0, 0]]]


def test_it_keeps_what_torchvision_keeps_of_every_row() -> None:
    torch.manual_seed(0)
    corner, side = torch.rand(3, 40, 2) * 50, torch.rand(3, 40, 2) * 30
    boxes, scores = torch.cat([corner, corner + side], dim=-1), torch.rand(3, 4, 40)
    kept = suppress_as_operator(boxes, scores, 0.4, 0.3, 40)
    for group in range(3):
        for row in range(4):
            usable = (scores[group, row] > 0.3).nonzero()[:, 0]
            alone = usable[nms(boxes[group, usable], scores[group, row, usable], 0.4)]
            assert kept[group, row].nonzero()[:, 0].tolist() == sorted(alone.tolist())


def test_nothing_above_the_threshold_keeps_nothing() -> None:
    assert not suppress(torch.rand(1, 5, 4), torch.zeros(1, 2, 5), 0.5, 0.5, 5).any()
