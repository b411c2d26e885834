"""A network that is small enough for hundreds of passes, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from r3cnn.backbones import FPN, ResNet
from r3cnn.detector import RCNN
from r3cnn.layers.attention import RelativePositionAttention
from r3cnn.ops.matching import Matcher
from r3cnn.ops.sampling import BalancedSampler
from r3cnn.roi.box_heads import BoxHead, NonLocalBoxHead, SharedFCBoxHead
from r3cnn.roi.extractors import GRoIEExtractor, SingleLevelRoIExtractor
from r3cnn.roi.heads import RoIHeads
from r3cnn.roi.inference import DetectionSettings
from r3cnn.roi.mask_branch import MaskBranch
from r3cnn.roi.mask_heads import FCNMaskHead
from r3cnn.roi.mask_iou_heads import BoxScores, MaskIoUHead
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


def mask_iou_head() -> MaskIoUHead:
    """A mask-IoU head with small kernels."""
    return MaskIoUHead(
        in_channels=CHANNELS,
        roi_size=14,
        num_classes=CLASSES,
        num_convs=2,
        widths=(8, 4),
        kernel_size=3,
        reduction=2,
        logit_threshold=0.5,
        loss_weight=0.5,
    )


def box_head(agnostic: bool, *, is_advanced: bool) -> Callable[[], BoxHead]:
    """Makes box heads, with small kernels if they are advanced ones."""
    if not is_advanced:
        return partial(SharedFCBoxHead, CHANNELS, 7, CLASSES, agnostic, 16)
    return partial(
        NonLocalBoxHead,
        in_channels=CHANNELS,
        roi_size=7,
        num_classes=CLASSES,
        class_agnostic=agnostic,
        widths=(8, 4),
        kernel_size=3,
        reduction=2,
    )


def all_levels(size: int) -> GRoIEExtractor:
    """Pools from all levels, with attention that is not switched off."""
    extractor = GRoIEExtractor(
        in_channels=CHANNELS,
        output_size=size,
        strides=(4, 8, 16, 32),
        sampling_ratio=2,
        kernel_size=3,
        attention=partial(RelativePositionAttention, heads=2, key_stride=2, wave_length=1000.0, transposed_y=True),
    )
    torch.nn.init.constant_(extractor.attention.gamma, 0.5)
    return extractor


def model(
    loops: LoopSchedule,
    *,
    static: bool | None = None,
    count: int = 100_000,
    agnostic: bool = True,
    has_mask_iou: bool = False,
    is_advanced: bool = False,
) -> RCNN:
    """A detector with random weights, a function of the shapes alone; by default nothing is sampled away.

    An advanced one has non-local box heads, a mask-IoU head and pools from all levels.
    """
    torch.manual_seed(0)
    strides = (4, 8, 16, 32)
    heads = RoIHeads(
        schedule=loops,
        num_classes=CLASSES,
        box_extractor=all_levels(7) if is_advanced else SingleLevelRoIExtractor(7, strides, 56),
        box_head=box_head(agnostic, is_advanced=is_advanced),
        mask_branch=partial(
            MaskBranch,
            extractor=all_levels(14) if is_advanced else SingleLevelRoIExtractor(14, strides, 56),
            head=partial(FCNMaskHead, CHANNELS, CLASSES, 1),
            iou_head=mask_iou_head() if has_mask_iou or is_advanced else BoxScores(),
            mask_size=28,
        ),
        sampler=BalancedSampler(count, 0.25 if count < 1000 else 1.0),
        crowd_iof=0.5,
        box_loss_beta=1.0,
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
            crowd_iof=0.5,
            box_loss_beta=1 / 9,
            train_proposals=ProposalSettings(60, 60, 0.7),
            eval_proposals=ProposalSettings(40, 40, 0.7),
            static_shapes=static,
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
    for head in detector.roi_heads.mask_branch.heads:
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
