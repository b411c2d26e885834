"""What is timed: a training step, and the way from images to mask codes, of our networks and of torchvision's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torch.optim import SGD
from torchvision.models.detection import MaskRCNN

from r3cnn.benchmarks.cases import Case
from r3cnn.benchmarks.peer import torchvision_inputs, total_loss, train_with_fixed_statistics
from r3cnn.benchmarks.workload import Workload
from r3cnn.detector import RCNN, BackwardOrder
from r3cnn.evaluation.paste import paste_and_encode
from r3cnn.evaluation.rle import EncodedMasks
from r3cnn.ops.fusion import fuse_scores
from r3cnn.structures import Detections

# The weights, and with them the work, stay what they are, while the optimizer has all of its own to do.
LEARNING_RATE = 1e-9
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
MASK_THRESHOLD = 0.5


Step = Callable[[], float]
Backward = Callable[[RCNN, Workload, Case, torch.Generator], Tensor]


def whole_backward(model: RCNN, workload: Workload, case: Case, generator: torch.Generator) -> Tensor:
    """All losses, then all gradients at once; the total loss."""
    with case.context(workload.images.device):
        loss, _ = model.total_loss(workload.normalized(), workload.sizes, workload.targets, generator)
    loss.backward()
    return loss.detach()


def backward_by_loop(model: RCNN, workload: Workload, case: Case, generator: torch.Generator) -> Tensor:
    """The gradients of each loop before the next one begins; the total loss."""
    with case.context(workload.images.device):
        loss, _ = model.total_loss(
            workload.normalized(), workload.sizes, workload.targets, generator, backward="by_loop"
        )
    loss.backward()
    return loss.detach()


# Ways to the gradients of a batch, by the name that the network has for them; the first is the one that is timed.
BACKWARDS: dict[BackwardOrder, Backward] = {"at_once": whole_backward, "by_loop": backward_by_loop}


@torch.no_grad()
def imitate_training(model: RCNN, workload: Workload, candidates: int) -> None:
    """Brings a new network to where its work is that of a trained one; changes it in place.

    Batch norm gets the statistics of the images, so that activations neither grow nor vanish. The score threshold
    becomes the score that ``candidates`` class scores per image reach: random weights pass none of the usual ones,
    and no mask would be made.
    """
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
            module.momentum = 1.0
            module.train()
    model.backbone(workload.normalized())
    model.eval()
    logits: list[Tensor] = []
    hooks = [
        head.register_forward_hook(lambda _, inputs, box: logits.append(box.logits))
        for head in model.roi_heads.box_heads
    ]
    model.detect(workload.normalized(), workload.sizes)
    for hook in hooks:
        hook.remove()
    scores = fuse_scores(logits, model.schedule.score_fusion)[:, :-1].flatten()
    wanted = min(candidates * len(workload.images), len(scores))
    threshold = float(scores.topk(wanted).values[-1])
    model.roi_heads.detection = replace(model.roi_heads.detection, score_threshold=threshold)


def our_training_step(model: RCNN, workload: Workload, case: Case, seed: int, backward: Backward) -> Step:
    """Normalisation, all losses, gradients and update; returns the loss."""
    optimizer = new_optimizer(model)
    generator = torch.Generator(workload.images.device).manual_seed(seed)

    def step() -> float:
        model.train()
        return update(optimizer, backward(model, workload, case, generator))

    return step


def peer_training_step(peer: MaskRCNN, workload: Workload, case: Case) -> Step:
    """The same with torchvision."""
    optimizer = new_optimizer(peer)
    images, targets = torchvision_inputs(workload)

    def step() -> float:
        train_with_fixed_statistics(peer)
        with case.context(workload.images.device):
            loss = total_loss(peer(images, targets))
        loss.backward()
        return update(optimizer, loss)

    return step


def new_optimizer(network: nn.Module) -> SGD:
    """An optimizer that has its momentum already, so that every step takes the same time and memory.

    Ours is fused, as in ``conf/optimizer``; torchvision's is what its reference training has.
    """
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    fused = True if isinstance(network, RCNN) else None
    optimizer = SGD(trainable, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, fused=fused)
    for parameter in trainable:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


def update(optimizer: SGD, loss: Tensor) -> float:
    """Moves the weights, lets the gradients go, and reads the loss.

    Raises:
        FloatingPointError: If the loss is not finite, since the time would be that of something else.
    """
    optimizer.step()
    optimizer.zero_grad()
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss is {value}")
    return value


def our_inference(model: RCNN, workload: Workload, case: Case) -> Step:
    """Images to run-length codes; returns the number of detections."""

    def infer() -> float:
        model.eval()
        with torch.inference_mode(), case.context(workload.images.device):
            found = model.detect(workload.normalized(), workload.sizes)
        return sum(len(code.counts) for code in our_codes(found, workload))

    return infer


def our_codes(found: Sequence[Detections], workload: Workload) -> list[EncodedMasks]:
    """Run-length codes of each image's detections."""
    return [paste_and_encode(one.masks, one.boxes, workload.size, threshold=one.mask_threshold) for one in found]


def peer_inference(peer: MaskRCNN, workload: Workload, case: Case) -> Step:
    """The same with torchvision, which pastes masks itself, and pycocotools."""
    images, _ = torchvision_inputs(workload)

    def infer() -> float:
        peer.eval()
        with torch.inference_mode(), case.context(workload.images.device):
            found = peer(images)
        return sum(len(peer_codes(one["masks"])) for one in found)

    return infer


def peer_codes(masks: Tensor) -> list[dict[str, object]]:
    """Codes of (D, 1, h, w) probabilities, in one call for all of them."""
    pixels = (masks[:, 0] > MASK_THRESHOLD).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return list(coco_mask.encode(np.asfortranarray(pixels)))
