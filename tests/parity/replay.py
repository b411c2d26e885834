"""Our stages, each run on what was recorded before it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

import pytest
import torch
from networks import as_rois, captured, limits_of, load_features, load_model, one_image
from recordings import Recording
from torch import Tensor

from r3cnn.detector import RCNN
from r3cnn.roi.loop_output import LoopOutput
from r3cnn.roi.mask_branch import PredictedMasks
from r3cnn.roi.training_rois import Samples
from r3cnn.structures import Detections, RoiRows, Rois

EVAL_RUN = re.compile(r"roi_test(_Le\d+|_maxcls|_rescale)?")


@dataclass(frozen=True)
class Loops:
    """What the evaluation loops saw and made of one image.

    Attributes:
        entering: (R, 4) RoIs that our own loop before hands to each loop.
        outputs: Of each loop, from the recorded RoIs.
        pooled: (R, C, S, S) features of each loop.
    """

    entering: list[Tensor]
    outputs: list[LoopOutput]
    pooled: list[Tensor]


@dataclass(frozen=True)
class Masks:
    """What the mask branch made of the recorded detections.

    Attributes:
        predicted: Fused masks and their scores.
        logits: (D, K, M, M) of each mask head that ran.
        ious: (D, K) of the mask-IoU head, one entry if there is one.
    """

    predicted: PredictedMasks
    logits: list[Tensor]
    ious: list[Tensor]


def configure(model: RCNN, recording: Recording, run: str) -> RCNN:
    """The model with the evaluation loops and score fusion of a recorded run; a single head is repeated."""
    assert EVAL_RUN.fullmatch(run), f"{recording.name}: unknown kind of run {run}"
    loops = int(recording.manifest["roi_test"][f"{run}/img0"]["n_bbox_calls"])
    schedule = model.schedule
    heads = schedule.heads if loops == len(schedule.heads) else [0] * loops
    fusion = "max" if run.endswith("maxcls") else "mean_logits"
    model.roi_heads.schedule = replace(schedule, eval_heads=heads, score_fusion=fusion)
    return model


def scale_of(recording: Recording, run: str, image: int) -> Tensor:
    """(4,) what the boxes of a run were divided by, from the detections of the run that did not divide.

    The factors were round numbers; the last digits of the ratio are rounding.
    """
    if not run.endswith("rescale"):
        return torch.ones(4)
    plain, divided = (recording.tensor(f"{name}/img{image}/det_bboxes")[:, 2:4].double() for name in ("roi_test", run))
    ratio = (plain / divided).median(dim=0).values
    return torch.round(ratio, decimals=4).float().repeat(2)


def recorded_rois(recording: Recording, run: str, image: int, loop: int) -> Tensor | None:
    """(R, 4) RoIs that went into a loop; a run that stored only its last loop's shares the others with other runs."""
    runs = [run, *(name for name in ("roi_test", f"roi_test_Le{loop + 1}") if name != run)]
    keys = [f"{name}/img{image}/stage{loop}_rois" for name in runs]
    return next((recording.tensor(key)[:, 1:] for key in keys if key in recording.arrays), None)


@lru_cache(maxsize=2)
def replay_loops(recording: Recording, run: str, image: int) -> Loops:
    """The evaluation loops of one image, from the first recorded proposals."""
    model = configure(load_model(recording), recording, run)
    entering: list[Tensor] = []

    def select(loop: int, rois: Rois) -> Samples:
        entering.append(rois.boxes[0])
        recorded = recorded_rois(recording, run, image, loop)
        return Samples.unlabelled(rois if recorded is None else as_rois([recorded]))

    features = one_image(load_features(recording), image)
    first = recording.manifest["roi_test_first_n_proposals"]
    proposals = recording.tensor(f"rpn_test/img{image}_proposals")[:first, :4]
    limits = limits_of([recording.sizes[image]])
    with captured(model.roi_heads.box_extractor) as pooled:
        heads = model.schedule.eval_heads
        outputs = list(model.roi_heads.run_loops(features, as_rois([proposals]), limits, heads, select))
    return Loops(entering, outputs, pooled)


def replay_masks(model: RCNN, recording: Recording, run: str, image: int) -> Masks:
    """The mask branch on the recorded detections, in their order."""
    prefix = f"{run}/img{image}"
    detections, labels = recording.tensor(f"{prefix}/det_bboxes"), recording.tensor(f"{prefix}/det_labels")
    rows = as_rois([detections[:, :4] * scale_of(recording, run, image)]).rows(keep_empty=False)
    features, branch = one_image(load_features(recording), image), model.roi_heads.mask_branch
    scorer = [branch.iou_head] if branch.iou_head.has_scores else []
    heads, feedback = model.schedule.eval_heads, model.schedule.has_feedback
    states = branch.states(branch.extractor(features, rows), heads, feedback=feedback)
    logits = [branch.head(head).predict(state) for head, state in zip(heads, states, strict=True)]
    with captured(*scorer) as ious:
        predicted = branch.predict(features, rows, labels, detections[:, 4], model.schedule)
    return Masks(predicted, logits, ious)


def detections_without_masks(model: RCNN, recording: Recording, outputs: list[LoopOutput], image: int) -> Detections:
    """What our code detects after the loops; its masks, on boxes that were not recorded, are left out to save time."""
    branch, size = model.roi_heads.mask_branch, model.roi_heads.mask_branch.mask_size

    def no_masks(
        _features: object, rows: RoiRows, _labels: Tensor, scores: Tensor, _schedule: object
    ) -> PredictedMasks:
        return PredictedMasks(torch.zeros(len(rows.boxes), size, size), scores)

    features = one_image(load_features(recording), image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch, "predict", no_masks)
        return model.roi_heads.conclude(features, outputs, limits_of([recording.sizes[image]]))[0]
