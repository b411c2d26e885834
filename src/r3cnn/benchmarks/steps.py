"""What is timed: a training step, and the way from images to mask codes, of our networks and of torchvision's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torch.optim import SGD
from torchvision.models.detection import MaskRCNN

from r3cnn.benchmarks.peer import torchvision_inputs, total_loss, train_with_fixed_statistics
from r3cnn.benchmarks.workload import Workload
from r3cnn.detector import RCNN
from r3cnn.evaluation.paste import paste_and_encode

# The weights, and with them the work, stay what they are, while the optimizer has all of its own to do.
LEARNING_RATE = 1e-9
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
MASK_THRESHOLD = 0.5


@torch.no_grad()
def imitate_training(model: RCNN, workload: Workload, candidates: int) -> None:
    """Brings a new network to where its work is that of a trained one; changes it in place.

    Batch norm gets the statistics of the images, so that activations neither grow nor vanish. The score threshold
    becomes the score that ``candidates`` class scores per image reach: random weights pass none of the usual ones,
    and no mask would be made.
    """
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    model.backbone(workload.normalized())
    model.eval()
    logits: list[Tensor] = []
    hook = model.roi_heads.box_heads[0].register_forward_hook(lambda head, inputs, box: logits.append(box.logits))
    model.detect(workload.normalized(), workload.sizes)
    hook.remove()
    scores = torch.cat(logits).softmax(dim=1)[:, :-1].flatten()
    wanted = min(candidates * len(workload.images), len(scores))
    threshold = float(scores.topk(wanted).values[-1])
    model.roi_heads.detection = replace(model.roi_heads.detection, score_threshold=threshold)


def our_training_step(model: RCNN, workload: Workload, seed: int) -> Callable[[], float]:
    """Normalisation, all losses, gradients and update; returns the loss."""
    optimizer = _optimizer(model)
    generator = torch.Generator(workload.images.device).manual_seed(seed)
    weights = model.loss_weights()

    def step() -> float:
        model.train()
        raw = model.losses(workload.normalized(), workload.sizes, workload.targets, generator)
        return _update(optimizer, torch.stack([weights[key] * value for key, value in raw.items()]).sum())

    return step


def peer_training_step(peer: MaskRCNN, workload: Workload) -> Callable[[], float]:
    """The same with torchvision."""
    optimizer = _optimizer(peer)
    images, targets = torchvision_inputs(workload)

    def step() -> float:
        train_with_fixed_statistics(peer)
        return _update(optimizer, total_loss(peer(images, targets)))

    return step


def _optimizer(network: nn.Module) -> SGD:
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return SGD(trainable, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def _update(optimizer: SGD, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def our_inference(model: RCNN, workload: Workload) -> Callable[[], float]:
    """Images to run-length codes; returns the number of detections."""

    def infer() -> float:
        model.eval()
        with torch.inference_mode():
            found = model.detect(workload.normalized(), workload.sizes)
            codes = [
                paste_and_encode(one.masks, one.boxes, workload.size, threshold=one.mask_threshold) for one in found
            ]
        return sum(len(code.counts) for code in codes)

    return infer


def peer_inference(peer: MaskRCNN, workload: Workload) -> Callable[[], float]:
    """The same with torchvision, which pastes masks itself, and pycocotools."""
    images, _ = torchvision_inputs(workload)

    def infer() -> float:
        peer.eval()
        with torch.inference_mode():
            found = peer(images)
            codes = [_encode(one["masks"]) for one in found]
        return sum(len(code) for code in codes)

    return infer


def _encode(masks: Tensor) -> list[dict[str, object]]:
    """Codes of (D, 1, h, w) probabilities, in one call for all of them."""
    pixels = (masks[:, 0] > MASK_THRESHOLD).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return list(coco_mask.encode(np.asfortranarray(pixels)))
