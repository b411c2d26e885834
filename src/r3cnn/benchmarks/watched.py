"""A training step and inference, of ours and of torchvision's, split into sections of the same names."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torchvision.models.detection import MaskRCNN

from r3cnn.benchmarks.cases import Case
from r3cnn.benchmarks.peer import torchvision_inputs, total_loss, train_with_fixed_statistics
from r3cnn.benchmarks.sections import Sections
from r3cnn.benchmarks.steps import Step, new_optimizer, our_codes, peer_codes, update
from r3cnn.benchmarks.workload import Workload
from r3cnn.detector import RCNN

NORMALISATION, BACKBONE, PYRAMID, RPN = "normalisation", "backbone", "pyramid", "RPN"
MASKS = "masks"
HEADS = "RoI heads: matching, refinement, losses, selection"
BACKWARD, OPTIMISER, CODES, REST = "backward", "optimiser", "pasting and RLE", "rest"


def boxes_of(loop: int) -> str:
    """Section of the pooling and the box head of a loop, from 1."""
    return f"loop {loop}: boxes"


def masks_of(loop: int) -> str:
    """Section of the pooling, the mask head and the mask targets of a loop, from 1."""
    return f"loop {loop}: masks"


def watch_ours(model: RCNN, sections: Sections) -> None:
    """Tells ``sections`` what runs; changes ``model`` in place. At inference the masks of all loops come together."""
    rpn, heads, branch = model.rpn, model.roi_heads, model.roi_heads.mask_branch
    loops = LoopNames()
    sections.watch_module(model.backbone, lambda: BACKBONE)
    sections.watch_module(model.fpn, lambda: PYRAMID)
    for method in ("losses", "propose"):
        sections.watch_method(rpn, method, lambda: RPN)
    for method in ("losses", "detect"):
        sections.watch_method(heads, method, loops.heads)
    sections.watch_module(cast(nn.Module, heads.box_extractor), loops.next_boxes)
    for head in heads.box_heads:
        sections.watch_module(head, loops.boxes)
    sections.watch_method(branch, "train_on", loops.next_masks)
    sections.watch_method(branch, "predict", lambda: MASKS)


class LoopNames:
    """Counts loops by what each of them calls once: the extractor of the boxes, the training of the masks."""

    def __init__(self) -> None:
        self._boxes, self._masks = 0, 0

    def heads(self) -> str:
        """A new step begins."""
        self._boxes, self._masks = 0, 0
        return HEADS

    def next_boxes(self) -> str:
        """A new loop begins."""
        self._boxes += 1
        return boxes_of(self._boxes)

    def boxes(self) -> str:
        """The loop goes on."""
        return boxes_of(self._boxes)

    def next_masks(self) -> str:
        """Masks of the next loop."""
        self._masks += 1
        return masks_of(self._masks)


def watch_peer(peer: MaskRCNN, sections: Sections) -> None:
    """The same for torchvision; what its transform does at the end is pasting."""
    heads = peer.roi_heads
    sections.watch_module(peer.transform, lambda: NORMALISATION)
    sections.watch_method(peer.transform, "postprocess", lambda: CODES if not peer.training else REST)
    sections.watch_module(peer.backbone.body, lambda: BACKBONE)
    sections.watch_module(peer.backbone.fpn, lambda: PYRAMID)
    sections.watch_module(peer.rpn, lambda: RPN)
    sections.watch_module(heads, lambda: HEADS)
    for module in (heads.box_roi_pool, heads.box_head, heads.box_predictor):
        sections.watch_module(module, lambda: boxes_of(1))
    for module in (heads.mask_roi_pool, heads.mask_head, heads.mask_predictor):
        sections.watch_module(module, lambda: masks_of(1) if peer.training else MASKS)


def our_watched_training(model: RCNN, workload: Workload, case: Case, seed: int, sections: Sections) -> Step:
    """What `our_training_step` does with one backward for all losses."""
    watch_ours(model, sections)
    optimizer = new_optimizer(model)
    generator = torch.Generator(workload.images.device).manual_seed(seed)
    weights = model.loss_weights()

    def step() -> float:
        sections.start()
        model.train()
        with sections.section(REST):
            with case.context(workload.images.device):
                with sections.section(NORMALISATION):
                    images = workload.normalized()
                raw = model.losses(images, workload.sizes, workload.targets, generator)
            loss = torch.stack([weights[key] * value for key, value in raw.items()]).sum()
            with sections.section(BACKWARD):
                loss.backward()
            with sections.section(OPTIMISER):
                return update(optimizer, loss.detach())

    return step


def peer_watched_training(peer: MaskRCNN, workload: Workload, case: Case, sections: Sections) -> Step:
    """What `peer_training_step` does."""
    watch_peer(peer, sections)
    optimizer = new_optimizer(peer)
    images, targets = torchvision_inputs(workload)

    def step() -> float:
        sections.start()
        train_with_fixed_statistics(peer)
        with sections.section(REST):
            with case.context(workload.images.device):
                loss = total_loss(peer(images, targets))
            with sections.section(BACKWARD):
                loss.backward()
            with sections.section(OPTIMISER):
                return update(optimizer, loss.detach())

    return step


def our_watched_inference(model: RCNN, workload: Workload, case: Case, sections: Sections) -> Step:
    """What `our_inference` does."""
    watch_ours(model, sections)

    def infer() -> float:
        sections.start()
        model.eval()
        with sections.section(REST), torch.inference_mode():
            with case.context(workload.images.device):
                with sections.section(NORMALISATION):
                    images = workload.normalized()
                found = model.detect(images, workload.sizes)
            with sections.section(CODES):
                return sum(len(code.counts) for code in our_codes(found, workload))

    return infer


def peer_watched_inference(peer: MaskRCNN, workload: Workload, case: Case, sections: Sections) -> Step:
    """What `peer_inference` does."""
    watch_peer(peer, sections)
    images, _ = torchvision_inputs(workload)

    def infer() -> float:
        sections.start()
        peer.eval()
        with sections.section(REST), torch.inference_mode():
            with case.context(workload.images.device):
                found = peer(images)
            with sections.section(CODES):
                return sum(len(peer_codes(one["masks"])) for one in found)

    return infer
