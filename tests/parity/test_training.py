"""Training equals the original's: matching, sampling, refined boxes, losses and gradients, with nothing random.

Each tolerance is four times what the original moved by when only its kernels or thread count changed (``noise.json``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from recordings import (
    Recording,
    as_rois,
    batch_targets,
    limits_of,
    load_features,
    load_model,
)
from torch import Tensor

from r3cnn.detector import RCNN
from r3cnn.ops.masks import mask_targets
from r3cnn.roi.training_rois import Samples
from r3cnn.structures import Rois

LOSS = 4 * 3e-6  # relative
GRADIENT = 4 * 1.3e-4  # relative
REFINED = 4 * 1.8e-4  # pixels, after one loop from recorded boxes
THEIR_LOSS = {"cls": "loss_cls", "box": "loss_bbox", "mask": "loss_mask"}
THEIR_MODULE = {
    "backbone": "backbone",
    "neck": "fpn",
    "rpn_head": "rpn",
    "roi_head.bbox_head": "roi_heads.box_heads",
    "roi_head.mask_head": "roi_heads.mask_heads",
}
THRESHOLDS = {"train_given_dec": (0.7, 0.6, 0.5), "train_dec": (0.7, 0.6, 0.5)}


def with_thresholds(model: RCNN, run: str, recording: Recording) -> RCNN:
    """The model with the IoU thresholds of a recorded run."""
    ours = load_model(recording.folder, recording.name).schedule
    default = (0.7, 0.6, 0.5) if recording.name.endswith("_dec") else (0.5, 0.6, 0.7, 0.8)[: len(ours.heads)]
    thresholds = THRESHOLDS.get(run, default)
    model.roi_heads.schedule = type(ours)(**{**vars(ours), "iou_thresholds": thresholds})
    return model


def their_losses(recording: Recording, run: str) -> dict[str, float]:
    """Recorded losses under our names, as their code weighted them."""
    recorded = recording.manifest["train"][run]["losses"]
    losses = {}
    for loop in range(len(load_model(recording.folder, recording.name).schedule.heads)):
        prefix = f"s{loop}." if f"s{loop}.loss_cls" in recorded else ""
        losses |= {f"loop{loop + 1}/{ours}": recorded[prefix + theirs] for ours, theirs in THEIR_LOSS.items()}
    if "loss_rpn_cls" in recorded:
        losses |= {"rpn/objectness": sum(recorded["loss_rpn_cls"]), "rpn/box": sum(recorded["loss_rpn_bbox"])}
    return losses


def weighted(model: RCNN, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    weights = model.loss_weights()
    return {key: weights[key] * value for key, value in losses.items()}


def assert_losses_equal(recording: Recording, run: str, losses: dict[str, Tensor]) -> None:
    expected = their_losses(recording, run)
    assert losses.keys() == expected.keys()
    for key, value in losses.items():
        assert value.item() == pytest.approx(expected[key], rel=LOSS, abs=1e-9), key


def norm(gradients: list[Tensor]) -> float:
    return math.sqrt(sum(float(g.double().pow(2).sum()) for g in gradients))


def assert_gradients_equal(model: RCNN, recorded: dict) -> None:
    for theirs, expected in recorded["grad_norm"].items():
        parameters = model.get_submodule(THEIR_MODULE[theirs]).parameters()
        assert norm([p.grad for p in parameters if p.grad is not None]) == pytest.approx(expected, rel=GRADIENT), theirs


def losses_on_given_proposals(model: RCNN, recording: Recording, features: Sequence[Tensor]) -> dict[str, Tensor]:
    proposals = [torch.from_numpy(boxes) for boxes in recording.rule.given_proposals(recording.seed)]
    limits, targets = limits_of(recording.sizes), batch_targets(recording)
    return weighted(model, model.roi_heads.losses(features, as_rois(proposals), limits, targets, None))


def test_losses_and_gradients_on_given_proposals_equal(golden: Path, recording: Recording, given_run: str) -> None:
    model = with_thresholds(load_model(golden, recording.name), given_run, recording)
    model.zero_grad()
    losses = losses_on_given_proposals(model, recording, model.features(torch.from_numpy(recording.inputs["img"])))
    assert_losses_equal(recording, given_run, losses)
    torch.stack(list(losses.values())).sum().backward()
    assert_gradients_equal(model, recording.manifest["train"][given_run])
    check_untrained_feedback(model, recording.manifest["train"][given_run])


@pytest.mark.slow
@torch.no_grad()
def test_static_shapes_give_the_same_losses(golden: Path, recording: Recording) -> None:
    model = with_thresholds(load_model(golden, recording.name), "train_given", recording)
    model.roi_heads.static_shapes = True
    losses = losses_on_given_proposals(model, recording, load_features(golden, recording.name))
    model.roi_heads.static_shapes = None
    assert_losses_equal(recording, "train_given", losses)


def check_untrained_feedback(model: RCNN, recorded: dict) -> None:
    """What the original never trained gets no gradient here either (mask_feedback=released)."""
    for key in recorded.get("grad_exactly_zero", []):
        assert key.endswith("conv_res.conv.weight")
        assert float(model.roi_heads.mask_heads[0].feedback.weight.grad.abs().max()) == 0.0


def test_losses_and_gradients_of_the_whole_detector_equal(golden: Path, recording: Recording, whole_run: str) -> None:
    model = with_thresholds(load_model(golden, recording.name), whole_run, recording)
    recorded = recording.manifest["train"][whole_run]
    model.zero_grad()
    images = torch.from_numpy(recording.inputs["img"])
    losses = weighted(model, model.losses(images, recording.sizes, recording.targets))
    assert_losses_equal(recording, whole_run, losses)
    if "grad_norm" in recorded:
        torch.stack(list(losses.values())).sum().backward()
        assert_gradients_equal(model, recorded)


@torch.no_grad()
def test_matching_sampling_and_refined_boxes_equal_loop_by_loop(
    golden: Path, recording: Recording, given_run: str
) -> None:
    model = with_thresholds(load_model(golden, recording.name), given_run, recording)
    features, targets = load_features(golden, recording.name), batch_targets(recording)
    limits, heads = limits_of(recording.sizes), model.schedule.heads
    rois = as_rois([recording.tensor(f"{given_run}/proposals_img{image}") for image in (0, 1)])
    for loop, head in enumerate(heads):
        output = model.roi_heads.run_loops(
            features, rois, limits, [head], lambda _, rois, loop=loop: model.roi_heads.sample(loop, rois, targets)
        )[0]
        check_samples(recording, given_run, loop, "box", output.samples, rois)
        mask_samples = output.samples
        if model.schedule.interleaved:
            expected = [recording.tensor(f"{given_run}/refined_after_stage{loop}_img{image}") for image in (0, 1)]
            for image in (0, 1):
                handed_on = output.refined.boxes[image][output.refined.valid[image]]
                torch.testing.assert_close(handed_on, expected[image], atol=REFINED, rtol=0)
            rois = as_rois(expected)
            mask_samples = model.roi_heads.sample(loop, rois, targets)
            check_samples(recording, given_run, loop, "mask", mask_samples, rois)
        check_mask_targets(recording, given_run, loop, mask_samples)


def check_samples(recording: Recording, run: str, loop: int, phase: str, samples: Samples, rois: Rois) -> None:
    """Positives, negatives and the IoU histogram of one assignment; their indices count into [gt ; proposals]."""
    events = recording.manifest["train"][run]["events"]
    padded_gt = max(len(target) for target in recording.targets)
    for image, target in enumerate(recording.targets):
        here = [e for e in events if (e["stage"], e["phase"], e["image"]) == (loop, phase, image)]
        assigned, sampled = (next(e for e in here if e["op"].startswith(op)) for op in ("assign", "sample"))
        iou = samples.iou[image][rois.valid[image]].numpy()
        assert np.histogram(iou, bins=20, range=(0, 1))[0].tolist() == assigned["iou_hist_20"]
        positive, valid = samples.positive[image], samples.rois.valid[image]
        assert int(positive.sum()) == sampled["n_pos"] == assigned["n_pos"] + len(target)
        assert int((valid & ~positive).sum()) == sampled["n_neg"] == assigned["n_neg"]
        assert int((samples.is_gt[image] & positive).sum()) == sampled["n_pos_is_gt"]
        index = samples.candidate[image][positive]
        index = torch.where(index >= padded_gt, index - padded_gt + len(target), index)
        prefix = f"{run}/stage{loop}_{phase}_img{image}"
        assert torch.equal(index, recording.tensor(f"{prefix}_pos_inds"))
        assert torch.equal(samples.gt[image][positive], recording.tensor(f"{prefix}_pos_gt"))


def check_mask_targets(recording: Recording, run: str, loop: int, samples: Samples) -> None:
    """The first recorded mask targets, bit by bit."""
    found = [
        mask_targets(target.masks, samples.rois.boxes[image][positive], samples.gt[image][positive], 28)
        for image, (target, positive) in enumerate(zip(recording.targets, samples.positive, strict=True))
    ]
    packed = recording.arrays[f"{run}/mask_targets{loop}_packed"]
    expected = torch.from_numpy(np.unpackbits(packed, axis=1).reshape(len(packed), 28, 28)).float()
    differ = (torch.cat(found)[: len(expected)] != expected).float().mean()
    assert float(differ) <= 1e-4  # a pixel whose mean coverage is one half up to rounding may fall on either side
