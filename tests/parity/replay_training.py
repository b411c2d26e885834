"""One training step of ours in which every assignment sees the boxes that the original's saw.

What a loop hands on is taken down and replaced by what the original handed on, which differs by rounding only. So the
rounding of one loop does not grow in the next, and no box can fall on the other side of an IoU threshold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from networks import as_rois, captured, limits_of, load_model
from recordings import Recording
from torch import Tensor

from r3cnn.detector import RCNN
from r3cnn.roi.box_heads import BoxOutput
from r3cnn.roi.mask_iou_heads import MaskSamples
from r3cnn.roi.training_rois import BatchTargets, Samples
from r3cnn.structures import Rois

TRAIN_RUN = re.compile(r"train(?P<given>_given)?(?P<falling>_dec)?(_gtignore(_iof(?P<iof>[\d.]+))?)?")
Place = tuple[int, str]  # loop from 0, and "box" or "mask": the assignment before or after the loop's refinement


@dataclass
class Step:
    """What a training step saw and made.

    Attributes:
        model: The network, its schedule as in the run.
        recorded: What the manifest says about the run.
        source: Prefix of the arrays that belong to the run.
        fed: RoIs that the original assigned.
        handed_on: RoIs that our code would have assigned in their place.
        samples: Ours, of the RoIs that were fed.
        boxes: Of each loop.
        masks: Of each loop.
        mask_states: Features of the mask heads that ran one after the other, of each loop.
        mask_logits: (P, K, M, M) of each loop.
        ious: (P, K) of the mask-IoU head, if there is one.
        rpn: Logits and deltas, if the RPN ran.
        losses: With their weights.
        sensitivities: Norm of the gradient of each loss with respect to the outputs that it is made of.
        gradients: Norm by parameter; without those that got no gradient. Empty if the run recorded none.
    """

    model: RCNN
    recorded: dict
    source: str
    fed: dict[Place, Rois] = field(default_factory=dict)
    handed_on: dict[Place, Rois] = field(default_factory=dict)
    samples: dict[Place, Samples] = field(default_factory=dict)
    boxes: list[BoxOutput] = field(default_factory=list)
    masks: list[MaskSamples] = field(default_factory=list)
    mask_states: list[list[Tensor]] = field(default_factory=list)
    mask_logits: list[Tensor] = field(default_factory=list)
    ious: list[Tensor] = field(default_factory=list)
    rpn: list[tuple[list[Tensor], list[Tensor]]] = field(default_factory=list)
    losses: dict[str, Tensor] = field(default_factory=dict)
    sensitivities: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)


@lru_cache(maxsize=1)
def train_step(recording: Recording, run: str) -> Step:
    """The step of a recorded run, and its gradients if the run recorded some."""
    model = configure(load_model(recording), run)
    model.zero_grad()
    if "grad_norm" in recording.manifest["train"][run]:
        step = replay(model, recording, run)
        step.sensitivities = sensitivities(step)
        torch.stack(list(step.losses.values())).sum().backward()
        named = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        step.gradients = {name: float(gradient.double().norm()) for name, gradient in named.items()}
    else:
        with without_gradients(model):
            step = replay(model, recording, run, cut=True)
        step.sensitivities = sensitivities(step)
    model.zero_grad()
    return step


@contextmanager
def without_gradients(model: RCNN) -> Iterator[None]:
    """No weight asks for a gradient."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def sensitivities(step: Step) -> dict[str, float]:
    """How much each loss moves with the outputs that it is made of: the norm of its gradient with respect to them."""
    outputs = {"mask_iou": step.ious}
    for loop, (boxes, masks) in enumerate(zip(step.boxes, step.mask_logits, strict=True), start=1):
        outputs |= {f"loop{loop}/cls": [boxes.logits], f"loop{loop}/box": [boxes.deltas], f"loop{loop}/mask": [masks]}
    for logits, deltas in step.rpn:
        outputs |= {"rpn/objectness": logits, "rpn/box": deltas}
    norms = {}
    for name, loss in step.losses.items():
        gradients = torch.autograd.grad(loss, list(outputs[name]), retain_graph=True)
        norms[name] = math.hypot(*(float(gradient.norm()) for gradient in gradients))
    return norms


def configure(model: RCNN, run: str) -> RCNN:
    """The model with the IoU thresholds of a recorded run."""
    match = TRAIN_RUN.fullmatch(run)
    assert match, f"unknown kind of run {run}"
    if match["falling"]:
        falling = sorted(model.schedule.iou_thresholds, reverse=True)
        model.roi_heads.schedule = replace(model.schedule, iou_thresholds=falling)
    return model


def replay(model: RCNN, recording: Recording, run: str, *, cut: bool = False) -> Step:
    """The losses of a recorded run and all that led to them; ``cut`` lets gradients end at the heads' outputs."""
    # A run that recorded nothing but losses has the arrays of the run that it must equal.
    source = run if f"{run}/proposals_img0" in recording.arrays else "train"
    step = Step(model, recording.manifest["train"][run], source)
    heads, branch, iof = model.roi_heads, model.roi_heads.mask_branch, TRAIN_RUN.fullmatch(run)["iof"]
    targets = recording.targets_with_crowds if iof else recording.targets
    heads.crowd_iof = model.rpn.crowd_iof = float(iof or 1.0)
    scorer = [branch.iou_head] if branch.iou_head.has_scores else []
    with (
        captured(model.rpn.head, cut=cut) as step.rpn,
        captured(*heads.box_heads, cut=cut) as step.boxes,
        captured(*(head.logits for head in branch.heads), cut=cut) as step.mask_logits,
        captured(*scorer, cut=cut) as step.ious,
        observed(step, recording),
    ):
        if TRAIN_RUN.fullmatch(run)["given"]:
            proposals = as_rois([torch.from_numpy(boxes) for boxes in recording.rule.given_proposals(recording.seed)])
            features = model.features(recording.images)
            losses = heads.losses(features, proposals, limits_of(recording.sizes), BatchTargets.of(targets), None)
        else:
            losses = model.losses(recording.images, recording.sizes, targets)
    weights = model.loss_weights()
    step.losses = {key: weights[key] * value for key, value in losses.items()}
    return step


@contextmanager
def observed(step: Step, recording: Recording) -> Iterator[None]:
    """Takes down what goes through the RoI heads, and feeds them with what was recorded."""
    heads, branch = step.model.roi_heads, step.model.roi_heads.mask_branch
    sample, train_on, states = heads.sample, branch.train_on, branch.states

    def sample_recorded(
        loop: int, rois: Rois, targets: BatchTargets, generator: torch.Generator | None = None
    ) -> Samples:
        place = (loop, "mask" if (loop, "box") in step.samples else "box")
        step.handed_on[place] = rois
        recorded = recording.per_image(f"{step.source}/{boxes_before(place)}")
        step.fed[place] = as_rois([boxes[:, :4] for boxes in recorded])
        step.samples[place] = sample(loop, step.fed[place], targets, generator)
        return step.samples[place]

    def train_masks(*args: object) -> MaskSamples:
        step.masks.append(train_on(*args))
        return step.masks[-1]

    def run_heads(*args: object, feedback: bool) -> list[Tensor]:
        step.mask_states.append(states(*args, feedback=feedback))
        return step.mask_states[-1]

    heads.sample, branch.train_on, branch.states = sample_recorded, train_masks, run_heads
    try:
        yield
    finally:
        heads.sample, branch.train_on, branch.states = sample, train_on, states


def boxes_before(place: Place) -> str:
    """Name of the boxes that are assigned in a place, ``{}`` for the image."""
    loop, phase = place
    before = loop if phase == "mask" else loop - 1
    return "proposals_img{}" if before < 0 else f"refined_after_stage{before}_img{{}}"
