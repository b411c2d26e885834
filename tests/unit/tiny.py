"""A network that is small enough for hundreds of passes, and inputs for it."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from r3cnn.backbones import FPN, ResNet
from r3cnn.detector import RCNN
from r3cnn.ops.matching import Matcher
from r3cnn.ops.sampling import BalancedSampler
from r3cnn.roi.box_heads import SharedFCBoxHead
from r3cnn.roi.extractors import SingleLevelRoIExtractor
from r3cnn.roi.heads import RoIHeads
from r3cnn.roi.inference import DetectionSettings
from r3cnn.roi.mask_heads import FCNMaskHead
from r3cnn.rpn import RPN, AnchorGenerator
from r3cnn.rpn.rpn import ProposalSettings
from r3cnn.schedule import LoopSchedule
from r3cnn.structures import InstanceMasks, Target

CHANNELS, CLASSES = 8, 3


def schedule(
    heads: tuple[int, ...] = (0, 0, 0),
    *,
    interleaved: bool = True,
    mask_feedback: str = "released",
    eval_heads: tuple[int, ...] | None = None,
    iou_thresholds: tuple[float, ...] | None = None,
) -> LoopSchedule:
    """R3-CNN's schedule by default; feedback convolutions in every head."""
    return LoopSchedule(
        heads=heads,
        iou_thresholds=iou_thresholds or (0.5, 0.6, 0.7, 0.8)[: len(heads)],
        loss_weights=(1.0, 0.75, 0.5, 0.3)[: len(heads)],
        eval_heads=eval_heads or heads,
        delta_stds=[(0.1, 0.1, 0.2, 0.2)] * len(set(heads)),
        interleaved=interleaved,
        mask_feedback=mask_feedback,
        feedback_heads=sorted(set(heads)),
    )


def model(loops: LoopSchedule, *, static: bool | None = None, count: int = 100_000, agnostic: bool = True) -> RCNN:
    """A detector with random weights, a function of the shapes alone; by default nothing is sampled away."""
    torch.manual_seed(0)
    strides = (4, 8, 16, 32)
    heads = RoIHeads(
        schedule=loops,
        num_classes=CLASSES,
        box_extractor=SingleLevelRoIExtractor(7, strides, 56),
        mask_extractor=SingleLevelRoIExtractor(14, strides, 56),
        box_head=partial(SharedFCBoxHead, CHANNELS, 7, CLASSES, agnostic, 16),
        mask_head=partial(FCNMaskHead, CHANNELS, CLASSES, 1),
        sampler=BalancedSampler(count, 0.25 if count < 1000 else 1.0),
        box_loss_beta=1.0,
        mask_size=28,
        detection=DetectionSettings(0.05, 0.5, 20, 0.5),
        static_shapes=static,
    )
    detector = RCNN(
        ResNet(10, "group_norm", -1, None),
        partial(FPN, out_channels=CHANNELS),
        partial(
            RPN,
            anchors=AnchorGenerator(4, (0.5, 1.0, 2.0), (*strides, 64)),
            matcher=Matcher(0.7, 0.3, 0.3),
            sampler=BalancedSampler(count if count < 1000 else 256, 0.5),
            allowed_border=0,
            box_loss_beta=1 / 9,
            train_proposals=ProposalSettings(60, 60, 0.7),
            eval_proposals=ProposalSettings(40, 40, 0.7),
        ),
        heads,
    )
    spread_outputs(detector)
    return detector.eval()


@torch.no_grad()
def spread_outputs(detector: RCNN) -> None:
    """Larger last layers, so that classes, boxes and masks differ from RoI to RoI as in a trained network."""
    detector.rpn.head.deltas.weight *= 10
    for head in detector.roi_heads.box_heads:
        head.logits.weight *= 300
        head.deltas.weight *= 100
    for head in detector.roi_heads.mask_heads:
        head.logits.weight *= 5


def images(count: int, size: tuple[int, int] = (64, 96), seed: int = 0) -> tuple[Tensor, list[tuple[int, int]]]:
    """Random normalised images and their sizes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *size, generator=generator), [size] * count


def target(boxes: list[list[float]], size: tuple[int, int] = (64, 96)) -> Target:
    """Instances of the given boxes, filled; labels 0, 1, 2, 0, …"""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
    labels = torch.arange(len(boxes)) % CLASSES
    return Target(torch.tensor(boxes).reshape(-1, 4), labels, InstanceMasks.from_dense(masks))


SOME = [[4.0, 6.0, 40.0, 50.0], [30.0, 20.0, 80.0, 60.0], [60.0, 4.0, 92.0, 30.0]]
