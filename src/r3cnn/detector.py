"""The detector: backbone, feature pyramid, proposals and RoI heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from r3cnn.backbones import FPN, Backbone
from r3cnn.backbones.backbone import STRIDES
from r3cnn.ops.boxes import image_limits
from r3cnn.ops.views import View, look
from r3cnn.roi.heads import RoIHeads
from r3cnn.roi.inspection import Inspection, SeenFeatures, inspect_loops, merge_proposals
from r3cnn.roi.loop_gradients import total_by_loop
from r3cnn.roi.losses import weighted_sum
from r3cnn.roi.training_rois import BatchTargets
from r3cnn.rpn import RPN
from r3cnn.schedule import LoopSchedule, ScoreFusion
from r3cnn.structures import Detections, LoopObserver, RoiRows, Rois, Size, Target

BackwardOrder = Literal["at_once", "by_loop"]
InferencePrecision = Literal["float32", "bf16"]
SIDE = 64  # in pixels, of the image that shapes are tried on


class RCNN(nn.Module):
    """Mask R-CNN, HTC or R3-CNN, whichever the schedule of the RoI heads says.

    Args:
        backbone: Gives feature maps C2 … C5 of images (B, 3, H, W).
        fpn: Called with the backbone's channels; turns its maps into pyramid levels.
        rpn: Called with the pyramid's channels; makes proposals.
        roi_heads: Refines them.

    Attributes:
        inference_precision: What layers compute in at inference: bf16 is autocast, with boxes, scores, NMS and masks
            in float32; float32 leaves an autocast of the caller as it is.
    """

    def __init__(
        self,
        backbone: Backbone,
        fpn: Callable[[Sequence[int]], FPN],
        rpn: Callable[[int], RPN],
        roi_heads: RoIHeads,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn(backbone.out_channels)
        self.rpn = rpn(self.fpn.out_channels)
        self.roi_heads = roi_heads
        self.inference_precision: InferencePrecision = "float32"

    @property
    def schedule(self) -> LoopSchedule:
        """The loop schedule of the RoI heads."""
        return self.roi_heads.schedule

    @property
    def num_classes(self) -> int:
        """K, foreground classes."""
        return self.roi_heads.num_classes

    def set_eval_heads(self, eval_heads: Sequence[int]) -> None:
        """Changes which heads run at inference, one entry per loop; the weights stay as they are."""
        self.roi_heads.schedule = replace(self.schedule, eval_heads=tuple(eval_heads))

    def loss_weights(self) -> dict[str, float]:
        """Factor of each entry of ``losses`` in the total loss."""
        return {"rpn/objectness": 1.0, "rpn/box": 1.0} | self.roi_heads.loss_weights()

    def features(self, images: Tensor) -> list[Tensor]:
        """Pyramid levels (B, C, H / stride, W / stride) of normalised images (B, 3, H, W), in channels-last memory."""
        return self.fpn(self.backbone(images.contiguous(memory_format=torch.channels_last)))

    def losses(
        self,
        images: Tensor,
        sizes: Sequence[Size],
        targets: Sequence[Target],
        generator: torch.Generator | None = None,
        observe: LoopObserver | None = None,
    ) -> dict[str, Tensor]:
        """Every loss of a batch, not weighted; all keys are there whatever the batch holds.

        Args:
            images: (B, 3, H, W) normalised, zero outside each image; H and W multiples of 32.
            sizes: (height, width) of each image inside the canvas.
            targets: Ground truth of each image.
            generator: Source of all sampling, on the device of the images; torch's own if ``None``.
            observe: Called once with the way of the RoIs through every loop.

        Returns:
            Scalars ``rpn/objectness``, ``rpn/box``, ``loop{t}/cls``, ``loop{t}/box``, ``loop{t}/mask``, t from 1,
            and ``mask_iou`` where a mask-IoU head scores the masks.
        """
        features = self.features(images)
        rois, losses = self.rpn.losses(features, sizes, targets, generator)
        limits = image_limits(sizes, images.device)
        return losses | self.roi_heads.losses(features, rois, limits, BatchTargets.of(targets), generator, observe)

    def total_loss(
        self,
        images: Tensor,
        sizes: Sequence[Size],
        targets: Sequence[Target],
        generator: torch.Generator | None = None,
        observe: LoopObserver | None = None,
        *,
        backward: BackwardOrder = "at_once",
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of all losses, to be minimised, and every loss, detached and not weighted.

        Args:
            images: As in ``losses``, like all but the last argument.
            sizes: As in ``losses``.
            targets: As in ``losses``.
            generator: As in ``losses``.
            observe: As in ``losses``.
            backward: ``at_once``, or ``by_loop``: the gradients of each loop are made before the next loop begins, so
                that memory does not grow with the loops.
        """
        weights = self.loss_weights()
        if backward == "at_once":
            losses = self.losses(images, sizes, targets, generator, observe)
            return weighted_sum(losses, weights), {name: loss.detach() for name, loss in losses.items()}
        features = self.features(images)
        rois, first = self.rpn.losses(features, sizes, targets, generator)
        limits, truth = image_limits(sizes, images.device), BatchTargets.of(targets)
        total, later = total_by_loop(
            lambda leaves: self.roi_heads.losses_by_loop(leaves, rois, limits, truth, generator, observe),
            features,
            list(self.roi_heads.parameters()),
            weights,
        )
        return total + weighted_sum(first, weights), {name: loss.detach() for name, loss in first.items()} | later

    @torch.no_grad()
    def detect(self, images: Tensor, sizes: Sequence[Size]) -> list[Detections]:
        """Detections of each image of a batch after the last evaluation loop; arguments as in ``losses``."""
        with self._autocast(images):
            return self.roi_heads.detect(*self._inference_inputs(images, sizes))

    @torch.no_grad()
    def detect_per_loop(self, images: Tensor, sizes: Sequence[Size]) -> list[list[Detections]]:
        """Detections [loop][image]: what ``detect`` gives with 1, 2, … loops, from one pass of the backbone."""
        with self._autocast(images):
            return self.roi_heads.detect_per_loop(*self._inference_inputs(images, sizes))

    @torch.no_grad()
    def inspect(
        self,
        images: Tensor,
        sizes: Sequence[Size],
        views: Sequence[View] = (View(),),
        score_fusions: Sequence[ScoreFusion] = (),
    ) -> Inspection:
        """What ``detect_per_loop`` gives, and more, from one pass of the backbone per view.

        Args:
            images: As in ``losses``.
            sizes: As in ``losses``.
            views: Ways to look at the images, whose outcomes are averaged (test-time augmentation).
            score_fusions: Rules whose detections are wanted beside those of the network's own rule.
        """
        with self._autocast(images):
            shown = [look(images, sizes, view) for view in views]
            seen = [SeenFeatures(one, self.features(one.images)) for one in shown]
            proposals = []
            for view in seen:
                found = self.rpn.propose_scored(view.features, view.seen.sizes)
                boxes = view.seen.plain_boxes(found.rois.boxes)
                proposals.append(replace(found, rois=replace(found.rois, boxes=boxes)))
            settings = self.rpn.eval_proposals
            merged = merge_proposals(
                proposals,
                nms_threshold=settings.nms_threshold,
                per_image=settings.per_image,
                is_static=self.rpn.static_shapes,
            )
            return inspect_loops(self.roi_heads, seen, merged, image_limits(sizes, images.device), score_fusions)

    def _inference_inputs(self, images: Tensor, sizes: Sequence[Size]) -> tuple[list[Tensor], Rois, Tensor]:
        features = self.features(images)
        return features, self.rpn.propose(features, sizes), image_limits(sizes, images.device)

    def _autocast(self, images: Tensor) -> AbstractContextManager[object]:
        if self.inference_precision == "float32":
            return nullcontext()
        return torch.autocast(images.device.type, torch.bfloat16)


def check_shapes(network: RCNN) -> None:
    """Tries all parts of a network on shapes.

    Args:
        network: On any device; on ``meta`` it costs nothing.

    Raises:
        ValueError: If they do not fit together; the message begins with the part, ``roi_heads.box_head``.
    """
    with next(network.parameters()).device, torch.no_grad():
        _check_parts(network)


def _check_parts(network: RCNN) -> None:
    part = "fpn"
    try:
        levels = zip(network.backbone.out_channels, (SIDE // stride for stride in STRIDES), strict=True)
        features = network.fpn([torch.zeros(1, channels, side, side) for channels, side in levels])
        strides = tuple(SIDE // feature.shape[-1] for feature in features)
        rpn, heads, branch = network.rpn, network.roi_heads, network.roi_heads.mask_branch
        part = "rpn"
        rpn.head(features)
        _check_strides("rpn.anchors", rpn.anchors.strides, strides, of_all=True)
        zeros = torch.zeros(2, dtype=torch.int64)
        rows = RoiRows(torch.zeros(2, 4), zeros, zeros, zeros == 0, is_static=True)
        extractors = {"box_extractor": heads.box_extractor, "mask_branch.extractor": branch.extractor}
        for name, extractor in extractors.items():
            part = f"roi_heads.{name}"
            _check_strides(part, getattr(extractor, "strides", ()), strides)
            extractor(features, rows)
        part = "roi_heads.box_head"
        for box_head in heads.box_heads:
            logits, deltas = box_head(heads.box_extractor(features, rows))
            _check_width("logits", logits.shape[1:], (network.num_classes + 1,))
            _check_width("deltas", deltas.shape[1:], (4 if deltas.shape[1] == 4 else 4 * network.num_classes,))
        part, pooled = "roi_heads.mask_branch", branch.extractor(features, rows)
        for mask_head in map(branch.head, range(len(branch.heads))):
            masks = mask_head.predict(mask_head.trunk(pooled, None))
            _check_width("masks", masks.shape[1:], (network.num_classes, branch.mask_size, branch.mask_size))
        if isinstance(branch.iou_head, torch.nn.Module):
            branch.iou_head(pooled, masks[:, 0])
    except Exception as error:  # parts of the user's own fail in any way
        if "meta" not in str(error):  # else one that cannot be asked for its shapes alone
            reason = str(error) if isinstance(error, RuntimeError | ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"{part}: {reason}") from error


def _check_strides(part: str, given: Sequence[int], strides: Sequence[int], *, of_all: bool = False) -> None:
    if list(given) != list(strides[: None if of_all else len(given)]):
        raise ValueError(f"strides of {part} are {list(given)}, those of the pyramid {list(strides)}")


def _check_width(what: str, shape: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(shape) != tuple(expected):
        raise ValueError(f"its {what} are {list(shape)} for each RoI, {list(expected)} are needed")
