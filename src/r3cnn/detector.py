"""The detector: backbone, feature pyramid, proposals and RoI heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from r3cnn.backbones import FPN, ResNet
from r3cnn.ops.boxes import image_limits
from r3cnn.roi.heads import RoIHeads
from r3cnn.roi.training_rois import BatchTargets
from r3cnn.rpn import RPN
from r3cnn.schedule import LoopSchedule
from r3cnn.structures import Detections, Rois, Size, Target


class RCNN(nn.Module):
    """Mask R-CNN, HTC or R3-CNN, whichever the schedule of the RoI heads says.

    Args:
        backbone: Gives feature maps C2 … C5 of images (B, 3, H, W).
        fpn: Called with the backbone's channels; turns its maps into pyramid levels.
        rpn: Called with the pyramid's channels; makes proposals.
        roi_heads: Refines them.
    """

    def __init__(
        self,
        backbone: ResNet,
        fpn: Callable[[Sequence[int]], FPN],
        rpn: Callable[[int], RPN],
        roi_heads: RoIHeads,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = fpn(backbone.out_channels)
        self.rpn = rpn(self.fpn.out_channels)
        self.roi_heads = roi_heads

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
        weights = {"rpn/objectness": 1.0, "rpn/box": 1.0}
        for loop, weight in enumerate(self.schedule.loss_weights, start=1):
            weights |= {f"loop{loop}/{name}": weight for name in ("cls", "box", "mask")}
        return weights

    def features(self, images: Tensor) -> list[Tensor]:
        """Pyramid levels (B, C, H / stride, W / stride) of normalised images (B, 3, H, W)."""
        return self.fpn(self.backbone(images))

    def losses(
        self,
        images: Tensor,
        sizes: Sequence[Size],
        targets: Sequence[Target],
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Every loss of a batch, not weighted; all keys are there whatever the batch holds.

        Args:
            images: (B, 3, H, W) normalised, zero outside each image; H and W multiples of 32.
            sizes: (height, width) of each image inside the canvas.
            targets: Ground truth of each image.
            generator: Source of all sampling, on the device of the images; torch's own if ``None``.

        Returns:
            Scalars ``rpn/objectness``, ``rpn/box``, ``loop{t}/cls``, ``loop{t}/box``, ``loop{t}/mask``, t from 1.
        """
        features = self.features(images)
        rois, losses = self.rpn.losses(features, sizes, targets, generator)
        limits = image_limits(sizes, images.device)
        return losses | self.roi_heads.losses(features, rois, limits, BatchTargets.of(targets), generator)

    @torch.no_grad()
    def detect(self, images: Tensor, sizes: Sequence[Size]) -> list[Detections]:
        """Detections of each image of a batch after the last evaluation loop; arguments as in ``losses``."""
        return self.roi_heads.detect(*self._inference_inputs(images, sizes))

    @torch.no_grad()
    def detect_per_loop(self, images: Tensor, sizes: Sequence[Size]) -> list[list[Detections]]:
        """Detections [loop][image]: what ``detect`` gives with 1, 2, … loops, from one pass of the backbone."""
        return self.roi_heads.detect_per_loop(*self._inference_inputs(images, sizes))

    def _inference_inputs(self, images: Tensor, sizes: Sequence[Size]) -> tuple[list[Tensor], Rois, Tensor]:
        features = self.features(images)
        return features, self.rpn.propose(features, sizes), image_limits(sizes, images.device)
