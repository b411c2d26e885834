"""What must hold for every detector, whatever its weights: one schedule, empty is normal, batch equals alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import tiny
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from r3cnn.detector import RCNN
from r3cnn.ops.boxes import image_limits
from r3cnn.roi import inference
from r3cnn.roi.training_rois import BatchTargets, Samples
from r3cnn.structures import Detections, Rois, Target

LOSSES = {"cls", "box", "mask"}


def run(model: RCNN, images: Tensor, sizes: list[tuple[int, int]], targets: Sequence[Target]) -> dict[str, Tensor]:
    return model.losses(images, sizes, targets, torch.Generator().manual_seed(0))


def assert_same(a: Detections, b: Detections, tolerance: float = 1e-4) -> None:
    assert a.labels.tolist() == b.labels.tolist()
    for name in ("boxes", "scores", "masks"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=tolerance, rtol=1e-4)


def assert_trains(model: RCNN, losses: dict[str, Tensor]) -> None:
    """All keys are there, finite, and connected to all parameters that a step should update."""
    loops = range(1, model.schedule.num_loops + 1)
    by_loop = {f"loop{t}/{name}" for t in loops for name in LOSSES}
    own = {"mask_iou"} if model.roi_heads.mask_branch.iou_head.has_scores else set()
    assert losses.keys() == {"rpn/objectness", "rpn/box"} | by_loop | own
    assert all(math.isfinite(float(value.detach())) for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_mask_rcnn_is_loop_one_of_r3cnn() -> None:
    one = tiny.model(tiny.schedule((0,), interleaved=False, mask_feedback="off"))
    three = tiny.model(tiny.schedule((0, 0, 0), mask_feedback="off"))
    three.load_state_dict(one.state_dict())
    images, sizes = tiny.images(2)
    targets = [tiny.target(tiny.SOME), tiny.target(tiny.SOME[:1])]
    first, all_three = (run(model, images, sizes, targets) for model in (one, three))
    for key in ("rpn/objectness", "rpn/box", "loop1/cls", "loop1/box"):
        torch.testing.assert_close(first[key], all_three[key])
    alone, loop_one = one.detect(images, sizes), three.detect_per_loop(images, sizes)[0]
    assert len(alone[0]) > 0
    for a, b in zip(alone, loop_one, strict=True):
        assert_same(a, b)


def test_masks_of_given_rois_are_those_of_loop_one() -> None:
    one = tiny.model(tiny.schedule((0,), interleaved=False, mask_feedback="off"))
    three = tiny.model(tiny.schedule((0, 0, 0), mask_feedback="off"))
    three.load_state_dict(one.state_dict())
    images, _ = tiny.images(1)
    rois = Rois(torch.tensor([tiny.SOME]), torch.ones(1, 3, dtype=torch.bool)).rows(keep_empty=False)
    logits = []
    for model in (one, three):
        heads = model.roi_heads
        state = heads.mask_branch.heads[0].trunk(heads.mask_branch.extractor(model.features(images), rois), None)
        logits.append(heads.mask_branch.heads[0].predict(state))
    torch.testing.assert_close(logits[0], logits[1])


@pytest.mark.parametrize("feedback", ["released", "trained", "off"])
def test_loop_k_of_n_equals_loop_k_of_n_plus_one(feedback: str) -> None:
    model = tiny.model(tiny.schedule(mask_feedback=feedback))
    images, sizes = tiny.images(2)
    model.set_eval_heads([0, 0, 0, 0])
    four = model.detect_per_loop(images, sizes)
    for loops in (1, 2, 3):
        model.set_eval_heads([0] * loops)
        for a, b in zip(model.detect(images, sizes), four[loops - 1], strict=True):
            assert len(a) > 0
            assert_same(a, b)


def test_loops_move_boxes() -> None:
    model = tiny.model(tiny.schedule())
    images, sizes = tiny.images(1)
    per_loop = model.detect_per_loop(images, sizes)
    assert not torch.equal(per_loop[0][0].boxes[:1], per_loop[2][0].boxes[:1])


def test_parameters_do_not_depend_on_the_number_of_loops() -> None:
    counts = {sum(p.numel() for p in tiny.model(tiny.schedule((0,) * n)).parameters()) for n in (1, 2, 3, 4)}
    assert len(counts) == 1


def test_two_heads_have_no_parameter_in_common() -> None:
    heads = tiny.model(tiny.schedule((0, 0, 1))).roi_heads
    for modules in (heads.box_heads, heads.mask_branch.heads):
        first, second = ({p.data_ptr() for p in module.parameters()} for module in modules)
        assert len(first) == len(second) > 0
        assert not first & second


@pytest.mark.parametrize("is_advanced", [False, True])
@pytest.mark.parametrize("static", [True, False])
def test_each_image_of_a_batch_gets_what_it_gets_alone(static: bool, is_advanced: bool) -> None:
    model = tiny.model(tiny.schedule(), static=static, is_advanced=is_advanced)
    images, sizes = tiny.images(3)
    sizes = [(64, 96), (50, 90), (40, 70)]
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    together = model.detect_per_loop(images, sizes)
    for i in range(3):
        alone = model.detect_per_loop(images[i : i + 1], sizes[i : i + 1])
        for loop in range(3):
            assert_same(together[loop][i], alone[loop][0])


def test_permuting_images_permutes_detections_and_keeps_losses() -> None:
    model = tiny.model(tiny.schedule())
    images, sizes = tiny.images(3)
    targets = [tiny.target(tiny.SOME), tiny.target(tiny.SOME[:1]), tiny.target([])]
    order = [2, 0, 1]
    straight, turned = model.detect(images, sizes), model.detect(images[order], sizes)
    for new, old in enumerate(order):
        assert_same(turned[new], straight[old])
    model.rpn.sampler = replace(model.rpn.sampler, count=100_000)  # nothing random
    losses = run(model, images, sizes, targets)
    permuted = run(model, images[order], sizes, [targets[i] for i in order])
    for key, value in losses.items():
        torch.testing.assert_close(value, permuted[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("is_advanced", [False, True])
@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("boxes", [[[], []], [tiny.SOME, []]], ids=["no object in any image", "no object in one image"])
def test_images_without_objects_train(boxes: list[list[list[float]]], static: bool, is_advanced: bool) -> None:
    model = tiny.model(tiny.schedule(), static=static, is_advanced=is_advanced).train()
    images, sizes = tiny.images(2)
    losses = run(model, images, sizes, [tiny.target(b) for b in boxes])
    if not any(boxes):
        assert [losses[key].item() for key in ("loop3/mask", "loop3/box", "rpn/box")] == [0, 0, 0]
    assert_trains(model, losses)


@pytest.mark.parametrize("static", [True, False])
def test_no_proposal_and_no_object_at_all_trains_and_detects_nothing(static: bool) -> None:
    model = tiny.model(tiny.schedule(), static=static)
    images, sizes = tiny.images(1)
    features, limits = model.features(images), image_limits(sizes, images.device)
    nothing = Rois(torch.zeros(1, 0, 4), torch.zeros(1, 0, dtype=torch.bool))
    losses = model.roi_heads.losses(features, nothing, limits, BatchTargets.of([tiny.target([])]), None)
    assert all(float(value.detach()) == 0 for value in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    with torch.no_grad():
        found = model.roi_heads.detect_per_loop(features, nothing, limits)
    assert [len(loop[0]) for loop in found] == [0, 0, 0]
    assert found[2][0].masks.shape == (0, 28, 28)


def test_no_positive_but_the_ground_truth_in_later_loops_trains() -> None:
    model = tiny.model(tiny.schedule(iou_thresholds=(0.5, 0.999, 0.999))).train()
    images, sizes = tiny.images(1)
    targets = [tiny.target(tiny.SOME)]
    features, limits = model.features(images), image_limits(sizes, images.device)
    proposals = Rois(torch.tensor([[[0.0, 0.0, 5.0, 5.0]]]), torch.ones(1, 1, dtype=torch.bool))
    batch = BatchTargets.of(targets)
    loops = model.roi_heads.run_loops(
        features, proposals, limits, (0, 0, 0), lambda loop, rois: model.roi_heads.sample(loop, rois, batch)
    )
    outputs = list(loops)
    assert [int((o.samples.positive & ~o.samples.is_gt).sum()) for o in outputs] == [0, 0, 0]
    assert [int(o.samples.positive.sum()) for o in outputs] == [3, 3, 3]
    assert_trains(model, run(model, images, sizes, targets))


@pytest.mark.parametrize(
    ("crowd", "sampled_rois", "sampled_anchors"), [("ignore", [0, 1, 2], [0, 1]), ("drop", [0, 1, 2, 3], [0, 1, 2])]
)
def test_what_lies_in_a_crowd_is_background_or_neither_positive_nor_negative_for_proposals_and_rois(
    crowd: str, sampled_rois: list[int], sampled_anchors: list[int]
) -> None:
    """A data set that drops its crowds hands out none, so that what lies in them is background."""
    model = tiny.model(tiny.schedule()).train()
    images, sizes = tiny.images(1)
    features, limits = model.features(images), image_limits(sizes, images.device)
    crowds = torch.tensor([[50.0, 0, 96, 64]])
    target = replace(tiny.target(tiny.SOME[:1]), crowds=crowds if crowd == "ignore" else crowds[:0])
    rois = Rois(
        torch.tensor([[[5.0, 6, 40, 48], [0, 40, 20, 60], [60, 10, 90, 60]]]), torch.ones(1, 3, dtype=torch.bool)
    )
    samples = model.roi_heads.sample(0, rois, BatchTargets.of([target]))
    assert samples.positive.sum() == 2  # the ground truth itself and the RoI on it
    assert sorted(samples.candidate[samples.rois.valid].tolist()) == sampled_rois  # the last one lies in the crowd
    losses = model.roi_heads.losses(features, rois, limits, BatchTargets.of([target]), None)
    assert all(torch.isfinite(value) for value in losses.values())

    anchors = torch.tensor([[5.0, 6, 40, 48], [0, 40, 20, 60], [60, 10, 90, 60]])
    model.rpn.sampler = replace(model.rpn.sampler, count=3)
    sampled, _ = model.rpn._sample(anchors, torch.ones(1, 3, dtype=torch.bool), [target], None)
    assert sorted(sampled.index[sampled.valid].tolist()) == sampled_anchors


def test_detections_of_an_impossible_threshold_are_empty() -> None:
    model = tiny.model(tiny.schedule())
    model.roi_heads.detection = replace(model.roi_heads.detection, score_threshold=1.0)
    images, sizes = tiny.images(2)
    assert [len(d) for d in model.detect(images, sizes)] == [0, 0]


def test_boxes_without_area_among_the_proposals_do_not_spoil_the_losses() -> None:
    model = tiny.model(tiny.schedule()).train()
    images, sizes = tiny.images(1)
    features, limits = model.features(images), image_limits(sizes, images.device)
    flat = Rois(torch.tensor([[[96.0, 0, 96, 64], [5, 5, 5, 5], *tiny.SOME]]), torch.ones(1, 5, dtype=torch.bool))
    losses = model.roi_heads.losses(features, flat, limits, BatchTargets.of([tiny.target(tiny.SOME)]), None)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("is_advanced", [False, True])
def test_static_and_compact_shapes_give_the_same_losses_and_gradients(is_advanced: bool) -> None:
    images, sizes = tiny.images(2)
    targets = [tiny.target(tiny.SOME), tiny.target(tiny.SOME[:1])]
    found = []
    for static in (True, False):
        model = tiny.model(tiny.schedule(), static=static, count=24, is_advanced=is_advanced).train()
        losses = run(model, images, sizes, targets)
        torch.stack(list(losses.values())).sum().backward()
        found.append((losses, {name: p.grad for name, p in model.named_parameters()}))
    for key in found[0][0]:
        torch.testing.assert_close(found[0][0][key], found[1][0][key], rtol=1e-5, atol=1e-6)
    for name, gradient in found[0][1].items():
        rounding = 1e-5 * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-3, atol=rounding, msg=name)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others() -> None:
    model = tiny.model(tiny.schedule(), count=8)
    images, sizes = tiny.images(2)
    targets = [tiny.target(tiny.SOME), tiny.target(tiny.SOME[:1])]
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 3, 4)]
    first, again, other = (model.losses(images, sizes, targets, generator) for generator in seeds)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_class_specific_boxes_and_cascades_train_and_detect() -> None:
    model = tiny.model(tiny.schedule((0, 0, 1)), agnostic=False).train()
    images, sizes = tiny.images(2)
    assert_trains(model, run(model, images, sizes, [tiny.target(tiny.SOME), tiny.target(tiny.SOME[:1])]))
    assert len(model.eval().detect(images, sizes)[0]) > 0


def test_trained_feedback_learns_and_released_feedback_does_not() -> None:
    images, sizes = tiny.images(1)
    norms = {}
    for mode in ("released", "trained"):
        model = tiny.model(tiny.schedule(mask_feedback=mode)).train()
        feedback = model.roi_heads.mask_branch.heads[0].feedback
        torch.nn.init.constant_(feedback.bias, 0.1)  # at 0 the ReLU lets nothing through
        torch.stack(list(run(model, images, sizes, [tiny.target(tiny.SOME)]).values())).sum().backward()
        norms[mode] = (float(feedback.weight.grad.norm()), float(feedback.bias.grad.norm()))
    assert norms["released"][0] == 0
    assert norms["released"][1] > 0
    assert norms["trained"][0] > 0


class CountReads(TorchDispatchMode):
    """Counts what makes the host wait: reading a value or a shape that data decide, and sending constants."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "nms", "lift_fresh")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = str(func)
        by_mask = name.startswith("aten.index") and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8)
            for arg in args
            if isinstance(arg, list | tuple)
            for i in arg
        )
        self.count += by_mask or any(wait in name for wait in self.WAITS)
        return func(*args, **(kwargs or {}))


def reads(loops: int, boxes: list[list[list[float]]], *, is_advanced: bool) -> int:
    model = tiny.model(tiny.schedule((0,) * loops), static=True, count=24, is_advanced=is_advanced).train()
    images, sizes = tiny.images(len(boxes))
    targets = [tiny.target(b) for b in boxes]
    with CountReads() as counter:
        run(model, images, sizes, targets)
    return counter.count


@pytest.mark.parametrize("is_advanced", [False, True])
def test_the_host_waits_for_the_device_equally_often_whatever_the_batch_and_the_loops(is_advanced: bool) -> None:
    cases = {
        "one image, one object, one loop": (1, [tiny.SOME[:1]]),
        "three loops": (3, [tiny.SOME[:1]]),
        "three objects": (3, [tiny.SOME]),
        "three images": (3, [tiny.SOME, [], tiny.SOME[:2]]),
        "four loops": (4, [tiny.SOME, tiny.SOME]),
    }
    counts = {name: reads(loops, boxes, is_advanced=is_advanced) for name, (loops, boxes) in cases.items()}
    assert len(set(counts.values())) == 1, counts
    assert counts["four loops"] < 30, counts  # mostly small constants, such as the image sizes; one is the NMS


def test_a_compact_step_is_seen_to_read() -> None:
    """The counter works: leaving out empty slots has to read how many there are."""
    model = tiny.model(tiny.schedule(), static=False, count=24).train()
    images, sizes = tiny.images(1)
    with CountReads() as counter:
        run(model, images, sizes, [tiny.target(tiny.SOME)])
    assert counter.count > 1


def test_select_boxes_takes_all_candidates_when_the_best_do_not_fill_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.linspace(0.9, 0.5, 30)[None]  # one class; 20 boxes at one place, then 10 apart
    boxes = torch.tensor([[0.0, 0, 50, 50]] * 20 + [[100.0 * i, 0, 100 * i + 50, 50] for i in range(1, 11)])[None]
    settings = inference.DetectionSettings(0.1, 0.5, 10, 0.5)
    few, few_are_enough = inference._select(scores, boxes, 1, 20, settings)
    everything, _ = inference._select(scores, boxes, 1, 30, settings)
    assert not bool(few_are_enough)
    assert int(few.rois.valid.sum()) == 1
    assert int(everything.rois.valid.sum()) == 10
    monkeypatch.setattr(inference, "_FIRST_CANDIDATES", 20)
    probabilities = torch.stack([scores, 1 - scores], dim=-1)
    found = inference.select_boxes(probabilities, boxes, torch.ones(1, 30, dtype=torch.bool), settings)
    assert torch.equal(found.scores, everything.scores)


def test_unlabelled_samples_hand_on_every_roi() -> None:
    rois = Rois(torch.zeros(1, 2, 4), torch.tensor([[True, False]]))
    assert Samples.unlabelled(rois).handed_on.tolist() == [[True, False]]
