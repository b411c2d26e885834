"""Other fusion rules, other views and the RoIs on their way, all from one pass."""

from dataclasses import replace

import pytest
import torch
from tiny import images, model, schedule

from r3cnn.ops.views import View, views_of
from r3cnn.roi.inspection import merge_proposals
from r3cnn.structures import Detections, Rois, ScoredRois

RULES = ("mean_logits", "mean_probs", "max", "last")
FIELDS = ("boxes", "scores", "labels", "masks", "mask_scores")


def assert_equal(one: list[list[Detections]], other: list[list[Detections]]) -> None:
    assert [len(found) for loop in one for found in loop] == [len(found) for loop in other for found in loop]
    for left, right in zip(one, other, strict=True):
        for a, b in zip(left, right, strict=True):
            assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


@pytest.mark.parametrize("agnostic", [True, False])
@pytest.mark.parametrize("has_mask_iou", [True, False])
def test_the_plain_view_gives_what_detection_gives_to_the_bit(agnostic: bool, has_mask_iou: bool) -> None:
    network = model(schedule(), agnostic=agnostic, has_mask_iou=has_mask_iou)
    batch, sizes = images(2)
    assert_equal(network.inspect(batch, sizes).detections, network.detect_per_loop(batch, sizes))


def test_all_loops_all_rules_of_fusion_and_their_rois_come_from_one_pass_through_the_backbone() -> None:
    network, passes = model(schedule(eval_heads=(0,) * 5)), []
    network.backbone.register_forward_hook(lambda *_: passes.append(1))
    found = network.inspect(*images(2), score_fusions=RULES)
    assert len(found.detections) == len(found.traces) == 5
    assert [len(loops) for loops in found.fused.values()] == [5] * len(RULES)
    assert len(passes) == 1


def test_every_fusion_rule_gives_what_a_network_with_that_rule_gives() -> None:
    network = model(schedule())
    batch, sizes = images(2)
    found = network.inspect(batch, sizes, score_fusions=RULES)
    assert tuple(found.fused) == RULES
    for rule in RULES:
        network.roi_heads.schedule = replace(network.schedule, score_fusion=rule)
        assert_equal(found.fused[rule], network.detect_per_loop(batch, sizes))
    last = [found.fused[rule][-1][0].scores for rule in RULES]
    assert len({tuple(scores.tolist()) for scores in last}) == len(RULES)


def test_after_one_loop_there_is_nothing_to_fuse_so_the_detections_are_shared() -> None:
    found = model(schedule()).inspect(*images(1), score_fusions=["last"])
    assert found.fused["last"][0] is found.detections[0]


def test_candidates_are_the_proposals_and_what_each_loop_made_of_them() -> None:
    network = model(schedule())
    batch, sizes = images(2)
    found = network.inspect(batch, sizes)
    proposals = network.rpn.propose(network.features(batch), sizes)
    assert len(found.candidates) == 4
    assert torch.equal(found.candidates[0].rois.boxes, proposals.boxes)
    assert (found.candidates[0].scores.diff(dim=1) <= 0).all()
    for stage, trace in zip(found.candidates[1:], found.traces, strict=True):
        assert torch.equal(stage.rois.boxes, trace.refined)
        assert ((stage.scores >= 0) & (stage.scores <= 1)).all()
    assert not torch.equal(found.candidates[1].rois.boxes, found.candidates[3].rois.boxes)


def test_a_mirrored_view_of_a_mirrored_image_finds_the_mirror_of_what_the_image_shows() -> None:
    network = model(schedule())
    batch, sizes = images(1)
    width = sizes[0][1]
    plain = network.inspect(batch, sizes).detections[-1][0]
    mirrored = network.inspect(batch.flip(-1), sizes, views=[View(flip=True)]).detections[-1][0]
    x1, y1, x2, y2 = mirrored.boxes.unbind(1)
    back = torch.stack([width - x2, y1, width - x1, y2], dim=1)
    assert len(plain) == len(mirrored) > 0
    torch.testing.assert_close(back, plain.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(mirrored.scores, plain.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mirrored.masks.flip(-1), plain.masks, rtol=1e-3, atol=1e-4)


NETWORKS = {
    "R3-CNN": lambda: model(schedule()),
    "R3-CNN with mask IoU": lambda: model(schedule(), has_mask_iou=True),
    "Mask R-CNN": lambda: model(schedule((0,), interleaved=False, mask_feedback="off"), agnostic=False),
    "HTC": lambda: model(schedule((0, 1, 2), mask_feedback="trained")),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_views_of_mirrored_images_mirror_what_the_views_of_the_images_show(name: str) -> None:
    """The mean over an image and its mirror image does not know which one came first."""
    network = NETWORKS[name]()
    batch, sizes = images(1)
    views = views_of([1.0, 1.5], flip=True)
    first = network.inspect(batch, sizes, views).detections[-1][0]
    second = network.inspect(batch.flip(-1), sizes, views).detections[-1][0]
    assert len(first) == len(second) > 0
    torch.testing.assert_close(second.scores, first.scores, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sizes[0][1] - second.boxes[:, 2], first.boxes[:, 0], rtol=1e-3, atol=0.05)


def test_one_of_equal_proposals_of_two_views_is_kept_and_the_best_come_first() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [30, 30, 40, 40]]])
    first = ScoredRois(Rois(boxes, torch.tensor([[True, True]])), torch.tensor([[0.9, 0.4]]))
    second = ScoredRois(Rois(boxes + 0.1, torch.tensor([[True, False]])), torch.tensor([[0.8, 0.99]]))
    merged = merge_proposals([first, second], nms_threshold=0.7, per_image=3)
    assert merged.rois.valid.tolist() == [[True, True, False]]
    assert merged.rois.boxes[0, :2].tolist() == boxes[0].tolist()
    torch.testing.assert_close(merged.scores[0, :2], torch.tensor([0.9, 0.4]))
