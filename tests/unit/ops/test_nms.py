"""NMS of a batch against torchvision's, group by group."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import nms

from r3cnn.ops import nms as module
from r3cnn.ops.nms import nms_mask, top_per_image


def random_boxes(images: int, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + torch.rand(images, count, 2, generator=generator) * 30], 2)
    return boxes, torch.rand(images, count, generator=generator)


@pytest.mark.parametrize("is_static", [True, False])
def test_only_boxes_of_one_image_and_group_suppress_each_other(is_static: bool) -> None:
    boxes, scores = random_boxes(2, 300, 0)
    groups = torch.stack([torch.arange(300) % 7, torch.arange(300) % 3])
    allowed = scores > 0.3
    keep = nms_mask(boxes, scores, groups, allowed, 0.5, is_static=is_static)
    expected = torch.zeros_like(keep)
    for image in range(2):
        for group in range(7):
            rows = ((groups[image] == group) & allowed[image]).nonzero()[:, 0]
            expected[image, rows[nms(boxes[image, rows], scores[image, rows], 0.5)]] = True
    assert 0 < int(keep.sum()) < int(allowed.sum())
    assert torch.equal(keep, expected)


@pytest.mark.parametrize("is_static", [True, False])
def test_many_images_are_treated_in_several_calls_with_the_same_outcome(
    is_static: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes, scores = random_boxes(5, 60, 1)
    groups, every = torch.arange(60).expand(5, 60) % 2, torch.ones(5, 60, dtype=torch.bool)
    at_once = nms_mask(boxes, scores, groups, every, 0.5, is_static=is_static)
    monkeypatch.setattr(module, "_LARGEST_CALL", 120)
    assert torch.equal(nms_mask(boxes, scores, groups, every, 0.5, is_static=is_static), at_once)


@pytest.mark.parametrize("is_static", [True, False])
def test_a_box_far_out_does_not_change_what_others_keep(is_static: bool) -> None:
    boxes, scores = random_boxes(1, 200, 1)
    groups = torch.zeros(1, 200, dtype=torch.int64)
    alone = nms_mask(boxes, scores, groups, groups == 0, 0.5, is_static=is_static)
    far = torch.tensor([[[9e5, 9e5, 9e5 + 7, 9e5 + 7]]])
    groups = torch.cat([groups + 900, groups[:, :1]], 1)
    scores = torch.cat([scores, scores[:, :1]], 1)
    crowd = nms_mask(torch.cat([boxes, far], 1), scores, groups, groups >= 0, 0.5, is_static=is_static)
    assert torch.equal(crowd[:, :200], alone)
    assert bool(crowd[0, 200])


@pytest.mark.parametrize("is_static", [True, False])
@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_no_box_gives_nothing(is_static: bool, shape: tuple[int, int]) -> None:
    nothing = torch.zeros(shape)
    keep = nms_mask(torch.zeros(*shape, 4), nothing, nothing.long(), nothing.bool(), 0.5, is_static=is_static)
    assert keep.shape == shape


def test_top_per_image_marks_slots_that_nothing_fills() -> None:
    keep = torch.tensor([[True, False, True], [False, False, False]])
    index, valid = top_per_image(keep, torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]]), 2)
    assert index[0].tolist() == [2, 0]
    assert valid.tolist() == [[True, True], [False, False]]
