"""Proposals that both sides of a comparison work on, so that RoIs and positives are equally many."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from r3cnn.benchmarks.workload import Workload
from r3cnn.detector import RCNN
from r3cnn.structures import Rois, Size, Target

NEAR_SHARE = 0.5  # of the proposals that lie on a ground truth, more than any sampler takes as positives
JITTER = 0.03  # of an object's side: an IoU of 0.89 or more, so positive in every loop of the paper
SMALLEST_SIDE, LARGEST_SIDE = 0.05, 0.6  # of the other proposals, as parts of the image's sides


def draw_proposals(workload: Workload, count: int, seed: int) -> Tensor:
    """(B, count, 4) float32 boxes inside the images: some on the objects, the others anywhere.

    Args:
        workload: Images and ground truth.
        count: Proposals per image.
        seed: Of everything drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    near = round(count * NEAR_SHARE)
    boxes = []
    for target in workload.targets:
        own = target.boxes.cpu()[torch.arange(near) % len(target)]
        sides = (own[:, 2:] - own[:, :2]).repeat(1, 2)
        jittered = own + JITTER * sides * (torch.rand(near, 1, generator=generator) * 2 - 1)
        boxes.append(torch.cat([jittered, _anywhere(workload.size, count - near, generator)]))
    height, width = workload.size
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    return torch.stack(boxes).clamp(min=0).minimum(limits).to(workload.images.device)


def _anywhere(size: Size, count: int, generator: torch.Generator) -> Tensor:
    """(count, 4) boxes of all sizes."""
    image = torch.tensor([size[1], size[0]], dtype=torch.float32)
    shares = SMALLEST_SIDE + (LARGEST_SIDE - SMALLEST_SIDE) * torch.rand(count, 2, generator=generator)
    corners = torch.rand(count, 2, generator=generator) * (1 - shares) * image
    return torch.cat([corners, corners + shares * image], dim=1)


def impose_proposals(model: RCNN, workload: Workload, seed: int) -> None:
    """Lets the proposal network do all of its work, and hands on drawn proposals instead; changes ``model`` in place.

    Random weights propose boxes of which hardly one is positive, and how many survive NMS is a matter of chance.
    """
    rpn = model.rpn
    in_training = _all_taken(draw_proposals(workload, rpn.train_proposals.per_image, seed))
    at_inference = _all_taken(draw_proposals(workload, rpn.eval_proposals.per_image, seed))
    own_losses, own_propose = rpn.losses, rpn.propose

    def losses(
        features: Sequence[Tensor],
        sizes: Sequence[Size],
        targets: Sequence[Target],
        generator: torch.Generator | None,
    ) -> tuple[Rois, dict[str, Tensor]]:
        return in_training, own_losses(features, sizes, targets, generator)[1]

    def propose(features: Sequence[Tensor], sizes: Sequence[Size]) -> Rois:
        own_propose(features, sizes)
        return at_inference

    for replacement in (losses, propose):
        setattr(rpn, replacement.__name__, replacement)


def _all_taken(boxes: Tensor) -> Rois:
    return Rois(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device))


def impose_on_peer(peer: MaskRCNN, model: RCNN, workload: Workload, seed: int) -> None:
    """The same proposals for torchvision's network; changes ``peer`` in place."""
    counts = {True: model.rpn.train_proposals.per_image, False: model.rpn.eval_proposals.per_image}
    given = {training: list(draw_proposals(workload, count, seed)) for training, count in counts.items()}
    peer.rpn.register_forward_hook(partial(_replace_boxes, given))


def _replace_boxes(
    given: dict[bool, list[Tensor]],
    rpn: torch.nn.Module,
    inputs: tuple[object, ...],
    output: tuple[list[Tensor], dict[str, Tensor]],
) -> tuple[list[Tensor], dict[str, Tensor]]:
    return given[rpn.training], output[1]
