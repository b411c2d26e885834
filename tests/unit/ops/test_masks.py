"""Mask targets from packed windows against RoIAlign of dense masks."""

from __future__ import annotations

import torch
from torchvision.ops import roi_align

from r3cnn.ops.masks import mask_targets
from r3cnn.structures import InstanceMasks

CANVAS = (64, 96)


def packed(dense: torch.Tensor, boxes: torch.Tensor) -> InstanceMasks:
    """Windows of the boxes with a pixel around them, cut at the canvas."""
    crops, corners = [], []
    for mask, (x1, y1, x2, y2) in zip(dense, boxes.tolist(), strict=True):
        left, top = max(int(x1) - 1, 0), max(int(y1) - 1, 0)
        right, bottom = min(int(x2) + 2, CANVAS[1]), min(int(y2) + 2, CANVAS[0])
        crops.append(mask[top:bottom, left:right])
        corners.append((left, top))
    return InstanceMasks.from_windows(crops, corners, CANVAS)


def ellipses(boxes: torch.Tensor) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(CANVAS[0]) + 0.5, torch.arange(CANVAS[1]) + 0.5, indexing="ij")
    centre, radius = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    far = ((x - centre[:, 0, None, None]) / radius[:, 0, None, None]) ** 2
    return (far + ((y - centre[:, 1, None, None]) / radius[:, 1, None, None]) ** 2 <= 1).to(torch.uint8)


def test_targets_equal_those_of_dense_masks_at_the_border_as_well() -> None:
    gt = torch.tensor([[0.0, 0, 40, 30], [50, 20, 96, 64], [10, 40, 20, 50], [0, 0, 96, 64]])
    dense = ellipses(gt)
    generator = torch.Generator().manual_seed(0)
    instances = torch.randint(0, 4, (200,), generator=generator)
    boxes = gt[instances] + torch.randn(200, 4, generator=generator) * 4
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, CANVAS[1])
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, CANVAS[0])
    rois = torch.cat([instances[:, None].float(), boxes], 1)
    coverage = roi_align(dense[:, None].float(), rois, 28, 1.0, -1, aligned=True)[:, 0]
    expected, found = (coverage >= 0.5).float(), mask_targets(packed(dense, gt), boxes, instances, 28)
    undecided = (coverage - 0.5).abs() < 1e-5
    assert torch.equal(found[~undecided], expected[~undecided])
    assert undecided.float().mean() < 0.01


def test_an_image_without_instances_gives_zeros() -> None:
    targets = mask_targets(InstanceMasks.empty(CANVAS), torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), 28)
    assert targets.shape == (3, 28, 28)
    assert not targets.any()


def test_a_roi_without_area_gives_zeros() -> None:
    dense = torch.ones(1, *CANVAS, dtype=torch.uint8)
    masks = InstanceMasks.from_dense(dense)
    assert not mask_targets(masks, torch.tensor([[5.0, 5, 5, 9]]), torch.zeros(1, dtype=torch.int64), 28).any()


def test_packing_and_unpacking_gives_the_same_masks() -> None:
    gt = torch.tensor([[0.0, 0, 40, 30], [50, 20, 96, 64]])
    dense = ellipses(gt)
    assert torch.equal(packed(dense, gt).to_dense(), dense)
