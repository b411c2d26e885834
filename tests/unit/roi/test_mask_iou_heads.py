"""What the mask-IoU head learns, counted by hand, and what becomes of its prediction."""

from __future__ import annotations

import pytest
import tiny
import torch

from r3cnn.ops.boxes import image_limits
from r3cnn.ops.masks import visible_fractions
from r3cnn.roi.mask_iou_heads import MaskSamples, mask_ious
from r3cnn.roi.training_rois import BatchTargets, Samples
from r3cnn.structures import InstanceMasks, Rois, Target


def one_instance() -> tuple[InstanceMasks, torch.Tensor]:
    """A mask of 8 x 6 pixels at (10, 20) in an image of 64 x 96, and its index for a number of boxes."""
    dense = torch.zeros(1, 64, 96, dtype=torch.uint8)
    dense[0, 20:26, 10:18] = 1
    return InstanceMasks.from_windows([dense[0, 19:27, 9:19]], [(9, 19)], (64, 96)), torch.zeros(5, dtype=torch.int64)


def test_the_visible_fraction_counts_whole_pixels_of_the_truncated_box() -> None:
    masks, instance = one_instance()
    boxes = torch.tensor(
        [
            [10.0, 20, 18, 26],  # all of it
            [10.9, 20.9, 14.9, 26.9],  # truncated to 10 … 14: the left half
            [17.2, 25.7, 17.9, 25.9],  # less than a pixel counts as one
            [40.0, 40, 60, 60],  # none of it
            [0.0, 0, 96, 23.99],  # the upper half
        ]
    )
    expected = torch.tensor([1, 0.5, 1 / 48, 0, 0.5])
    torch.testing.assert_close(visible_fractions(masks, boxes, instance), expected)


def test_the_visible_fraction_equals_a_crop_of_the_dense_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = (torch.rand(3, 64, 96, generator=generator) > 0.6).to(torch.uint8)
    dense[2] = 0
    crops = [dense[0, 5:50, 7:96], dense[1], dense[2, 3:9, 3:5]]
    dense[0, :5] = dense[0, 50:] = 0
    dense[0, :, :7] = 0
    masks = InstanceMasks.from_windows(crops, [(7, 5), (0, 0), (3, 3)], (64, 96))
    corner = torch.rand(200, 2, generator=generator) * torch.tensor([96.0, 64])
    boxes = torch.cat([corner, (corner + torch.rand(200, 2, generator=generator) * 50)], dim=1)
    boxes = boxes.minimum(torch.tensor([96.0, 64, 96, 64]))
    instances = torch.randint(0, 3, (200,), generator=generator)
    expected = []
    for (x1, y1, x2, y2), instance in zip(boxes.int().tolist(), instances.tolist(), strict=True):
        crop = dense[instance, y1 : y1 + max(y2 - y1, 1), x1 : x1 + max(x2 - x1, 1)]
        expected.append(crop.sum().item() / max(dense[instance].sum().item(), 1))
    torch.testing.assert_close(visible_fractions(masks, boxes, instances), torch.tensor(expected))


def test_no_instance_gives_no_fraction() -> None:
    empty = visible_fractions(InstanceMasks.empty((64, 96)), torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    assert empty.tolist() == [0, 0]


def test_the_iou_counts_the_part_of_the_instance_outside_the_roi_as_well() -> None:
    masks, _ = one_instance()
    boxes = torch.tensor([[[10.0, 20, 14, 26]]])  # the left half of the instance
    rois = Rois(boxes, torch.ones(1, 1, dtype=torch.bool))
    logits = torch.full((1, 4, 4), -1.0)
    logits[0, :2] = 0.6  # 8 pixels; above 0.5, though the probability is 0.65
    logits[0, 2] = 0.4  # below it, though the probability is above 0.5
    samples = Samples.unlabelled(rois)
    case = MaskSamples(rois.rows(keep_empty=False), samples, torch.zeros(1, 1, 2, 2), logits, torch.ones(1, 4, 4))
    targets = BatchTargets.of([Target(boxes[0], torch.zeros(1, dtype=torch.int64), masks)])
    # All 16 pixels are the instance's, whose other half lies outside: 32 in all. IoU = 8 / (8 + 32 - 8).
    assert mask_ious(case, targets, 0.5).tolist() == pytest.approx([0.25])


def run(static: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor | None]]:
    model = tiny.model(tiny.schedule(), has_mask_iou=True, static=static, count=24).train()
    images, sizes = tiny.images(2)
    targets = [tiny.target(tiny.SOME), tiny.target(tiny.SOME[:1])]
    losses = model.losses(images, sizes, targets, torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    return losses, {name: p.grad for name, p in model.named_parameters()}


def test_static_and_compact_shapes_give_the_same_mask_iou_loss_and_gradients() -> None:
    (losses, gradients), (compact, compact_gradients) = run(static=True), run(static=False)
    assert float(losses["mask_iou"].detach()) > 0
    torch.testing.assert_close(losses["mask_iou"], compact["mask_iou"], rtol=1e-5, atol=1e-7)
    for name, gradient in gradients.items():
        rounding = 1e-4 * max(1e-3, float(gradient.abs().max()))  # of sums over all cells and RoIs
        torch.testing.assert_close(gradient, compact_gradients[name], rtol=1e-3, atol=rounding, msg=name)


def test_the_loss_has_its_own_weight_whatever_the_loops_weigh() -> None:
    model = tiny.model(tiny.schedule(), has_mask_iou=True)
    assert model.loss_weights()["mask_iou"] == 0.5
    assert "mask_iou" not in tiny.model(tiny.schedule()).loss_weights()


def test_the_gradient_reaches_the_mask_head() -> None:
    model = tiny.model(tiny.schedule(), has_mask_iou=True).train()
    images, sizes = tiny.images(1)
    model.losses(images, sizes, [tiny.target(tiny.SOME)])["mask_iou"].backward()
    assert float(model.roi_heads.mask_branch.heads[0].logits.weight.grad.abs().max()) > 0


def test_masks_are_ranked_by_box_score_times_predicted_iou() -> None:
    model = tiny.model(tiny.schedule(), has_mask_iou=True)
    torch.nn.init.zeros_(model.roi_heads.mask_branch.iou_head.iou.weight)
    torch.nn.init.constant_(model.roi_heads.mask_branch.iou_head.iou.bias, 0.5)
    images, sizes = tiny.images(2)
    for found in model.detect(images, sizes):
        assert len(found) > 0
        assert found.has_mask_scores
        torch.testing.assert_close(found.mask_scores, found.scores * 0.5)


def test_without_ground_truth_or_detections_there_is_a_loss_and_an_empty_result() -> None:
    model = tiny.model(tiny.schedule(), has_mask_iou=True).train()
    images, sizes = tiny.images(1)
    features, limits = model.features(images), image_limits(sizes, images.device)
    nothing = Rois(torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool))
    losses = model.roi_heads.losses(features, nothing, limits, BatchTargets.of([tiny.target([])]), None)
    assert float(losses["mask_iou"].detach()) == 0
    losses["mask_iou"].backward()
    with torch.no_grad():
        assert model.roi_heads.detect(features, nothing, limits)[0].mask_scores.shape == (0,)
