"""torchvision's Mask R-CNN with the weights and settings of one of ours, so that both have the same work to do."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn
from torchvision.ops import MultiScaleRoIAlign

from r3cnn.benchmarks.harness import section
from r3cnn.benchmarks.workload import MEAN, STD, Workload, draw_proposals
from r3cnn.detector import RCNN
from r3cnn.interop.torchvision import their_name
from r3cnn.roi.extractors import RoIExtractor, SingleLevelRoIExtractor

MASK_THRESHOLD = 0.5
NORMALISATION, CODES = "normalisation", "pasting and RLE"  # sections of a step
_LEVELS = ("0", "1", "2", "3")  # names of P2 to P5
# Rows of theirs that come before ours: their background is class 0, and has deltas and masks that nobody uses.
_BACKGROUND_ROWS = {"box_predictor.bbox_pred": 4, "mask_predictor.mask_fcn_logits": 1}


class Torchvision(nn.Module):
    """``maskrcnn_resnet50_fpn`` and its batch, with the methods of `Ours`.

    Args:
        model: Our network, `experiment=mask_rcnn`; its weights are copied.
        workload: The batch.
        seed: Of the proposals, which are those of ours.
    """

    def __init__(self, model: RCNN, workload: Workload, seed: int) -> None:
        super().__init__()
        self.network, self.workload = torchvision_network(model, workload), workload
        counts = {True: model.rpn.train_proposals.per_image, False: model.rpn.eval_proposals.per_image}
        given = {training: list(draw_proposals(workload, count, seed)) for training, count in counts.items()}
        self.network.rpn.register_forward_hook(lambda rpn, _, output: (given[rpn.training], output[1]))
        self._images, self._targets = torchvision_inputs(workload)

    def train(self, mode: bool = True) -> Self:
        """Training mode, but batch norm uses its running statistics, as ``norm: bn_eval`` does."""
        super().train(mode)
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self) -> Tensor:
        """Sum of all losses."""
        return torch.stack(list(self.network(self._images, self._targets).values())).sum()

    def infer(self) -> int:
        """From images to run-length codes of all masks, those of an image in one call; returns their number."""
        number = 0
        with self.workload.autocast():
            found = self.network(self._images)
        with section(CODES):
            for one in found:
                pixels = (one["masks"][:, 0] > MASK_THRESHOLD).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
                number += len(coco_mask.encode(np.asfortranarray(pixels)))
        return number


def torchvision_network(model: RCNN, workload: Workload) -> MaskRCNN:
    """``maskrcnn_resnet50_fpn`` with the numbers, weights and frozen layers of ``model``, `experiment=mask_rcnn`.

    Resizing is switched off in training, where our data loader does it; at inference both sides of the image are
    already what they shall be. RoIAlign takes as many samples as ours, but is torchvision's own (not aligned).

    Raises:
        ValueError: If ``model`` is not of that architecture.
    """
    rpn, heads = model.rpn, model.roi_heads
    threshold = model.schedule.iou_thresholds[0]
    network = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=model.num_classes + 1,
        min_size=min(workload.size),
        max_size=max(workload.size),
        image_mean=[value / 255 for value in MEAN],
        image_std=[value / 255 for value in STD],
        rpn_pre_nms_top_n_train=rpn.train_proposals.per_level,
        rpn_pre_nms_top_n_test=rpn.eval_proposals.per_level,
        rpn_post_nms_top_n_train=rpn.train_proposals.per_image,
        rpn_post_nms_top_n_test=rpn.eval_proposals.per_image,
        rpn_nms_thresh=rpn.eval_proposals.nms_threshold,
        rpn_fg_iou_thresh=rpn.matcher.foreground,
        rpn_bg_iou_thresh=rpn.matcher.background,
        rpn_batch_size_per_image=rpn.sampler.count,
        rpn_positive_fraction=rpn.sampler.positive_fraction,
        box_score_thresh=heads.detection.score_threshold,
        box_nms_thresh=heads.detection.nms_threshold,
        box_detections_per_img=heads.detection.max_detections,
        box_fg_iou_thresh=threshold,
        box_bg_iou_thresh=threshold,
        box_batch_size_per_image=heads.sampler.count,
        box_positive_fraction=heads.sampler.positive_fraction,
        box_roi_pool=_pool(heads.box_extractor),
        mask_roi_pool=_pool(heads.mask_branch.extractor),
        _skip_resize=True,
    )
    try:
        network.load_state_dict(
            {_their_name(name): _their_rows(_their_name(name), value) for name, value in model.state_dict().items()}
        )
    except RuntimeError as error:
        raise ValueError(f"torchvision's maskrcnn_resnet50_fpn is of another architecture: {error}") from error
    is_trainable = {_their_name(name): parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trainable[name])
    return network.to(workload.images.device)


def _pool(extractor: RoIExtractor) -> MultiScaleRoIAlign:
    """From the level that fits, with as many samples as the size of a RoI asks for."""
    if not isinstance(extractor, SingleLevelRoIExtractor):
        raise ValueError(f"torchvision pools each RoI from one level, got a {type(extractor).__name__}")
    return MultiScaleRoIAlign(list(_LEVELS), extractor.output_size, sampling_ratio=-1)


def _their_name(name: str) -> str:
    theirs = their_name(name)
    if theirs is None:
        raise ValueError(f"{name} has no counterpart in torchvision's Mask R-CNN")
    return theirs


def _their_rows(name: str, value: Tensor) -> Tensor:
    """Weights with the background as the first class."""
    if "box_predictor.cls_score" in name:
        return value.roll(1, dims=0)
    for layer, rows in _BACKGROUND_ROWS.items():
        if layer in name:
            return torch.cat([value.new_zeros(rows, *value.shape[1:]), value])
    return value.clone()


def torchvision_inputs(workload: Workload) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """The batch as torchvision takes it: (3, h, w) images in [0, 1], labels from 1, (G, h, w) uint8 masks."""
    height, width = workload.size
    images = [image[:, :height, :width].float() / 255 for image in workload.images]
    targets = []
    for target in workload.targets:
        masks = target.masks.to_dense()[:, :height, :width].to(target.boxes.device)
        targets.append({"boxes": target.boxes, "labels": target.labels + 1, "masks": masks})
    return images, targets
