"""Training equals the original's: assignments, refined boxes, outputs, losses and gradients, with nothing random."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from checks import assert_close, assert_recorded, assert_statistics
from networks import parameter_names
from recordings import Recording
from replay_training import Step, boxes_before
from tolerances import (
    DELTAS,
    GRADIENT,
    LOGITS,
    LOSS,
    MASK_IOU,
    MASK_IOU_LOSS,
    MASK_LOGITS,
    RPN_DELTAS,
    RPN_LOGITS,
    refined,
)
from torch import Tensor
from torchvision.ops import roi_align

from r3cnn.roi.mask_iou_heads import mask_ious
from r3cnn.roi.training_rois import BatchTargets

STAGE = re.compile(r"(?:s(?P<loop>\d+)\.)?(?P<kind>acc|loss_cls|loss_bbox|loss_mask)")
OUR_LOSS = {
    "loss_cls": "loop{}/cls",
    "loss_bbox": "loop{}/box",
    "loss_mask": "loop{}/mask",
    "loss_mask_iou": "mask_iou",
    "loss_rpn_cls": "rpn/objectness",
    "loss_rpn_bbox": "rpn/box",
}
COVERAGE = 1e-4  # share of a mask pixel; float32 coordinates are off by 3e-5 pixels, and so is a mean of samples


class TrainingTests:
    """Tests of one step; the subclasses say of which recorded runs."""

    def test_every_assignment_equals(self, recording: Recording, step: Step) -> None:
        for event in step.recorded.get("events", []):
            place, image, kind = (event["stage"], event["phase"]), event["image"], event["op"].split()[0]
            found = {"assign": assigned, "sample": sampled}[kind](step, place, image)
            expected = {key: value for key, value in event.items() if key not in ("stage", "phase", "image", "op")}
            assert found == expected, f"{recording.name}: {event}"
        most = max(len(target) for target in recording.targets)
        for (loop, phase), samples in step.samples.items():
            for image, target in enumerate(recording.targets):
                prefix, positive = f"{step.source}/stage{loop}_{phase}_img{image}", samples.positive[image]
                index = samples.candidate[image][positive]  # into [gt of the batch's largest image ; proposals]
                index = torch.where(index >= most, index - most + len(target), index)
                assert torch.equal(index, recording.tensor(f"{prefix}_pos_inds")), prefix
                assert torch.equal(samples.gt[image][positive], recording.tensor(f"{prefix}_pos_gt")), prefix

    def test_refined_boxes_equal(self, recording: Recording, step: Step) -> None:
        after = {place: rois for place, rois in step.handed_on.items() if place != (0, "box")}
        for place, rois in after.items():
            for image in recording.image_numbers:
                key = f"{step.source}/{boxes_before(place)}".format(image)
                found = rois.boxes[image][rois.valid[image]]
                assert_close(found, recording.tensor(key), refined(recording.sizes), f"{recording.name}: {key}")
        assert len(after) == (2 * step.model.schedule.num_loops - 1 if step.model.schedule.interleaved else 0)

    def test_outputs_of_every_loop_equal(self, recording: Recording, step: Step) -> None:
        assert len(step.boxes) == len(step.mask_logits) == step.model.schedule.num_loops
        for loop, boxes in enumerate(step.boxes):
            for name, values, tolerance in (("cls", boxes.logits, LOGITS), ("reg", boxes.deltas, DELTAS)):
                assert_recorded(recording, f"{step.source}/stage{loop}_{name}_", {"": (values, tolerance)})
        # The last mask head of a loop was recorded with its logits, those that feed it with their features.
        by_loop = zip(step.mask_states, step.mask_logits, strict=True)
        calls = [output for states, logits in by_loop for output in (*states[:-1], logits)]
        assert {f"{step.source}/mask_call{call}_sample" for call in range(len(calls))} == {
            key for key in recording.arrays if key.startswith(f"{step.source}/mask_call")
        }
        for call, values in enumerate(calls):
            assert_recorded(recording, f"{step.source}/mask_call{call}_", {"": (values, MASK_LOGITS)})
            if "events" in step.recorded:
                assert_statistics(values, step.recorded[f"mask_call{call}"], MASK_LOGITS, f"mask call {call}")

    def test_mask_targets_equal(self, recording: Recording, step: Step) -> None:
        for loop, masks in enumerate(step.masks):
            packed, side = recording.arrays[f"{step.source}/mask_targets{loop}_packed"], masks.wanted.shape[-1]
            expected = torch.from_numpy(np.unpackbits(packed, axis=1)[:, : side * side].reshape(-1, side, side)).bool()
            close = undecided_pixels(recording, step, loop)
            differ = (masks.wanted[: len(expected)].bool() != expected) & ~close[: len(expected)]
            assert not differ.any(), f"{recording.name}: {int(differ.sum())} pixels of loop {loop}"
            if "events" in step.recorded:
                manifest = step.recorded[f"mask_targets{loop}"]
                assert_statistics(masks.wanted, manifest, float(close.float().mean()) + 1e-9, f"mask targets {loop}")
                sums = torch.tensor(manifest["per_roi_sum_first20"])
                off = (masks.wanted.sum(dim=(1, 2))[: len(sums)] - sums).abs()
                assert (off <= close.sum(dim=(1, 2))[: len(sums)]).all()

    def test_losses_equal(self, recording: Recording, step: Step) -> None:
        seen = set()
        for key, value in step.recorded["losses"].items():
            stage = STAGE.fullmatch(key)
            loop, kind = (int(stage["loop"] or 0), stage["kind"]) if stage else (0, key)
            if kind == "acc":
                assert_accuracy(step, loop, value)
                continue
            name, expected = OUR_LOSS[kind].format(loop + 1), sum(value) if isinstance(value, list) else value
            allowed = tolerance(recording, step, name, expected)
            assert step.losses[name].item() == pytest.approx(expected, rel=0, abs=allowed), f"{recording.name} {key}"
            seen.add(name)
        assert seen == step.losses.keys()

    def test_the_total_loss_and_what_is_logged_equal(self, recording: Recording, step: Step) -> None:
        recorded = step.recorded
        sums = {key: sum(value) if isinstance(value, list) else value for key, value in recorded["losses"].items()}
        total = sum(value for key, value in sums.items() if "loss" in key)
        assert recorded["log_vars"] == pytest.approx(sums | {"loss": total}, rel=1e-6)
        assert recorded["total"] == pytest.approx(total, rel=1e-6)
        allowed = sum(tolerance(recording, step, name, loss.item()) for name, loss in step.losses.items())
        assert sum(loss.item() for loss in step.losses.values()) == pytest.approx(total, rel=0, abs=allowed)

    def test_mask_ious_equal(self, recording: Recording, step: Step) -> None:
        prefix = f"{step.source}/mask_iou_"
        recorded = [key for key in recording.arrays if key.startswith(prefix)]
        assert bool(recorded) == bool(step.ious) == step.model.roi_heads.mask_branch.iou_head.has_scores
        if step.ious:
            ours, margin = wanted_ious(recording, step)
            assert ((ours - recording.tensor(f"{prefix}targets")).abs() <= margin + 1e-6).all()
            assert_recorded(recording, f"{prefix}pred_", {"": (step.ious[0], MASK_IOU)})

    def test_gradients_equal(self, recording: Recording, step: Step) -> None:
        recorded, names = step.recorded, parameter_names(recording)
        assert ("grad_norm" in recorded) == bool(step.gradients)
        norms = {theirs: step.gradients.get(ours, 0.0) for theirs, ours in names.items()}
        nothing = dict.fromkeys(norms, 0.0)  # up to here a norm is nothing
        for module, expected in recorded.get("grad_norm", {}).items():
            own = [name for name in norms if name.startswith(f"{module}.")]
            assert math.hypot(*(norms[name] for name in own)) == pytest.approx(expected, rel=GRADIENT), module
            listed = {name: norm for name, norm in recorded["grad_norm_per_param"].items() if name in own}
            for name, exact in listed.items():
                allowed = gradient_tolerance(exact, expected, list(listed.values()))
                assert norms[name] == pytest.approx(exact, rel=0, abs=allowed), name
            # What a soft-max takes away again, like the bias of its logits, has sums of rounded terms for a gradient.
            nothing |= dict.fromkeys(own, 1e-6 * expected)
        for name in (*recorded.get("grad_none", ()), *recorded.get("grad_exactly_zero", ())):
            assert norms[name] <= nothing[name], name
        trained = {name for name, norm in norms.items() if norm > nothing[name]}
        assert trained <= recorded.get("grad_norm_per_param", {}).keys()


def gradient_tolerance(norm: float, module: float, norms: list[float]) -> float:
    """How far the norm of one parameter's gradient may be off, if that of its whole module is off by `GRADIENT`.

    The module's norm averages the errors of its parameters, so theirs are larger by the root of how many count. A norm
    that is zero but for rounding has no share of its own to be off by; it gets an even share of the module's.
    """
    effective = sum(n**2 for n in norms) ** 2 / sum(n**4 for n in norms)
    return GRADIENT * (math.sqrt(effective) * norm + module / math.sqrt(len(norms)))


def assigned(step: Step, place: tuple[int, str], image: int) -> dict:
    """Counts before ground truth is added; ignored boxes count as IoU 0."""
    samples, valid = step.samples[place], step.fed[place].valid[image]
    chosen = samples.rois.valid[image] & ~samples.is_gt[image]
    total, positives = int(valid.sum()), int((samples.positive[image] & chosen).sum())
    negatives = int(chosen.sum()) - positives
    histogram = np.histogram(samples.iou[image][valid].numpy(), bins=20, range=(0, 1))[0].tolist()
    counts = {"n_boxes": total, "n_pos": positives, "n_neg": negatives, "n_ignored": total - positives - negatives}
    return {**counts, "iou_hist_20": histogram}


def sampled(step: Step, place: tuple[int, str], image: int) -> dict:
    """Counts with ground truth added."""
    samples = step.samples[place]
    positive = samples.positive[image]
    return {
        "n_pos": int(positive.sum()),
        "n_neg": int((samples.rois.valid[image] & ~positive).sum()),
        "n_pos_is_gt": int((samples.is_gt[image] & positive).sum()),
    }


def assert_accuracy(step: Step, loop: int, expected: float) -> None:
    """Percentage of RoIs whose best class is the true one; the best two may be equal up to rounding."""
    samples = step.samples[loop, "box"]
    best = step.boxes[loop].logits.detach().topk(2, dim=1)
    close = (best.values[:, 0] - best.values[:, 1]) <= 2 * LOGITS
    found = 100 * float((best.indices[:, 0] == samples.labels[samples.rois.valid]).float().mean())
    assert found == pytest.approx(expected, rel=1e-5, abs=100 * float(close.float().mean()))


def undecided_pixels(recording: Recording, step: Step, loop: int) -> Tensor:
    """(P, M, M) bool: pixels of the mask targets that are covered to one half, up to rounding."""
    masks = step.masks[loop]
    dense = [target.masks.to_dense()[:, None].float() for target in recording.targets]
    instance = masks.samples.gt.flatten()[masks.rows.slot]
    covered = [
        roi_align(dense[int(image)], torch.cat([gt[None].float(), box])[None], masks.wanted.shape[-1], 1.0, -1, True)[0]
        for image, gt, box in zip(masks.rows.image, instance, masks.rows.boxes, strict=True)
    ]
    return (torch.cat(covered) - 0.5).abs() <= COVERAGE if covered else masks.wanted.bool()


def wanted_ious(recording: Recording, step: Step) -> tuple[Tensor, Tensor]:
    """(P,) targets of the mask-IoU head, and how far pixels whose logit lies on the threshold can move them."""
    masks, threshold = step.masks[-1], step.model.roi_heads.mask_branch.iou_head.logit_threshold
    close = (masks.logits.detach() - threshold).abs() <= MASK_LOGITS
    pixels = close.sum(dim=(1, 2)) + undecided_pixels(recording, step, -1).sum(dim=(1, 2))
    return mask_ious(masks, BatchTargets.of(recording.targets), threshold), pixels / masks.wanted.sum(dim=(1, 2)).clamp(
        min=1
    )


def tolerance(recording: Recording, step: Step, name: str, value: float) -> float:
    """How far a loss may be off: as the recorded noise of losses, or of the outputs that it is made of, allows.

    A loss with few positives is a sum of few rounded terms, so that what its outputs are off by shows more.
    """
    kind = name.split("/")[-1]
    relative = MASK_IOU_LOSS if kind == "mask_iou" else LOSS
    outputs = {"objectness": RPN_LOGITS, "cls": LOGITS, "mask": MASK_LOGITS, "mask_iou": MASK_IOU}
    noise = outputs.get(kind, RPN_DELTAS if name == "rpn/box" else DELTAS)
    return max(relative * abs(value), noise * step.sensitivities[name]) + flips(recording, step, name) + 1e-9


def flips(recording: Recording, step: Step, name: str) -> float:
    """How far pixels that rounding can decide either way move a loss; nothing, in most recordings."""
    weight = step.model.loss_weights()[name]
    if name.endswith("/mask"):
        loop = int(name.removeprefix("loop").removesuffix("/mask")) - 1
        masks, close = step.masks[loop], undecided_pixels(recording, step, loop)
        return weight * float((masks.logits.detach().abs() * close).sum()) / max(1, close.numel())
    if name == "mask_iou":
        goal, margin = wanted_ious(recording, step)
        labels = step.masks[-1].samples.labels.flatten()[step.masks[-1].rows.slot]
        error = (step.ious[0].detach().gather(1, labels[:, None])[:, 0] - goal).abs()
        return weight * float(((2 * error + margin) * margin)[goal > 0].sum()) / max(1, int((goal > 0).sum()))
    return 0.0
