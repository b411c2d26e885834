"""Grouped NMS against torchvision's, group by group."""

from __future__ import annotations

import torch
from torchvision.ops import nms

from r3cnn.ops.nms import grouped_nms, top_per_image


def random_boxes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 50
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 30], 1), torch.rand(
        count, generator=generator
    )


def test_groups_do_not_suppress_each_other() -> None:
    boxes, scores = random_boxes(300, 0)
    groups = torch.arange(300) % 7
    kept = set(grouped_nms(boxes, scores, groups, 0.5).tolist())
    expected = set()
    for group in range(7):
        rows = (groups == group).nonzero()[:, 0]
        expected |= set(rows[nms(boxes[rows], scores[rows], 0.5)].tolist())
    assert kept == expected


def test_a_box_far_out_does_not_change_what_others_keep() -> None:
    boxes, scores = random_boxes(200, 1)
    groups = torch.zeros(200, dtype=torch.int64)
    alone = grouped_nms(boxes, scores, groups, 0.5)
    far = torch.tensor([[9e5, 9e5, 9e5 + 7, 9e5 + 7]])
    crowd = grouped_nms(
        torch.cat([boxes, far]), torch.cat([scores, scores[:1]]), torch.cat([groups + 900, groups[:1]]), 0.5
    )
    assert [i for i in crowd.tolist() if i < 200] == alone.tolist()


def test_top_per_image_marks_slots_that_nothing_fills() -> None:
    keep = torch.tensor([[True, False, True], [False, False, False]])
    index, valid = top_per_image(keep, torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]]), 2)
    assert index[0].tolist() == [2, 0]
    assert valid.tolist() == [[True, True], [False, False]]
