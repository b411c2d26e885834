"""Drawn images and proposals: enough positives in every loop, the same for both sides."""

from __future__ import annotations

import pytest
import tiny
import torch
from torchvision.ops import box_iou

from r3cnn.benchmarks.harness import CPU
from r3cnn.benchmarks.networks import impose_proposals
from r3cnn.benchmarks.workload import Case, Workload, draw_proposals, draw_workload
from r3cnn.structures import LoopTrace


@pytest.fixture
def batch() -> Workload:
    return draw_workload(Case("fp32", 2, (160, 190), objects=4), num_classes=tiny.CLASSES, seed=0, device=CPU)


def test_half_of_the_proposals_are_positive_in_every_loop_of_the_paper(batch: Workload) -> None:
    boxes = draw_proposals(batch, 100, seed=0)
    assert boxes.shape == (2, 100, 4)
    for proposals, target in zip(boxes, batch.targets, strict=True):
        assert float(box_iou(proposals[:50], target.boxes).amax(dim=1).min()) > 0.8
        assert float((box_iou(proposals[50:], target.boxes).amax(dim=1) < 0.5).float().mean()) > 0.7


def test_proposals_lie_in_the_image_and_are_a_function_of_the_seed(batch: Workload) -> None:
    boxes = draw_proposals(batch, 51, seed=0)
    assert float(boxes.min()) >= 0
    assert float(boxes[..., 2].max()) <= 190
    assert float(boxes[..., 3].max()) <= 160
    assert bool((boxes[..., 2:] > boxes[..., :2]).all())
    assert torch.equal(boxes, draw_proposals(batch, 51, seed=0))
    assert not torch.equal(boxes, draw_proposals(batch, 51, seed=1))


def test_the_network_works_on_them_with_equally_many_rois_in_every_loop(batch: Workload) -> None:
    model = tiny.model(tiny.schedule(), count=40)
    with torch.no_grad():
        for head in model.roi_heads.box_heads:
            head.deltas.weight.zero_()  # refined boxes stay where they are, as those of a new network nearly do
    impose_proposals(model, batch, seed=0)
    seen: list[LoopTrace] = []
    losses = model.train().losses(
        batch.normalized(), batch.sizes, batch.targets, torch.Generator().manual_seed(0), seen.extend
    )
    assert torch.equal(seen[0].offered.boxes, draw_proposals(batch, 60, seed=0))
    assert [trace.refined.shape[1] for trace in seen] == [40, 40, 40]
    assert losses["rpn/objectness"].requires_grad  # the proposal network has worked, too
    assert all(losses[f"loop{loop}/mask"].item() > 0 for loop in (1, 2, 3))


def test_at_inference_every_proposal_is_looked_at(batch: Workload) -> None:
    model = tiny.model(tiny.schedule())
    impose_proposals(model, batch, seed=0)
    sizes: list[int] = []
    model.roi_heads.box_heads[0].register_forward_hook(lambda _, inputs, output: sizes.append(len(inputs[0])))
    model.detect(batch.normalized(), batch.sizes)
    assert sizes == [2 * 40] * 3


def workload(seed: int = 0, objects: int = 5) -> Workload:
    return draw_workload(Case("fp32", 2, (50, 70), objects), num_classes=3, seed=seed, device=CPU)


def test_the_same_seed_draws_the_same_batch_and_another_seed_another() -> None:
    first, again, other = workload(seed=1), workload(seed=1), workload(seed=2)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets[1].boxes, again.targets[1].boxes)
    assert not torch.equal(first.images, other.images)


def test_every_object_fills_its_box_inside_the_image() -> None:
    for target in workload(objects=20).targets:
        assert len(target) == 20
        assert 0 <= int(target.labels.min()) <= int(target.labels.max()) < 3
        for mask, box in zip(target.masks.to_dense(), target.boxes.tolist(), strict=True):
            rows, columns = mask.nonzero().unbind(dim=1)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert [float(edge) for edge in edges] == box
            assert box[2] <= 70
            assert box[3] <= 50


def test_outside_the_image_the_network_input_is_zero() -> None:
    normalized = workload().normalized()
    assert normalized.shape == (2, 3, 64, 96)
    assert float(normalized[:, :, 50:].abs().sum() + normalized[:, :, :, 70:].abs().sum()) == 0
