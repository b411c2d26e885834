"""The detector as one function of tensors of fixed shapes, its loops unrolled."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from r3cnn.detector import RCNN
from r3cnn.interop.suppression import Suppression
from r3cnn.ops.nms import top_per_image
from r3cnn.ranges import check_range
from r3cnn.roi.inference import SelectedBoxes
from r3cnn.structures import MOST_PIXELS, Rois, Size, canvas_of

EVERY_OBJECTNESS = -0.5  # below all objectness, above the score of an empty place


@dataclass(frozen=True)
class FixedSizes:
    """The sizes that an exported network has once and for all.

    Attributes:
        image: (height, width) in pixels of the images that go in; smaller ones are padded at the right and below.
        batch: B, images at a time.
        proposals: Most proposals of an image; None: as the network's own.
        detections: D, most detections of an image; None: as the network's own.

    Raises:
        ValueError: For a size that is not positive.
    """

    image: Size
    batch: int = 1
    proposals: int | None = None
    detections: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(self.image))  # from a list of a configuration
        check_range("[1, inf)", image_size=self.image, batch_size=self.batch)
        if self.image[0] * self.image[1] > MOST_PIXELS:
            raise ValueError(f"image_size is {list(self.image)}: at most {MOST_PIXELS} pixels are possible")
        check_range("[1, inf)", proposals=self.proposals, detections=self.detections)

    @property
    def canvas(self) -> Size:
        """(height, width) of what the network sees."""
        return canvas_of(self.image)


class ExportedDetector(nn.Module):
    """What `RCNN.detect` does, in shapes that depend on nothing but the sizes given here.

    Args:
        model: The network; it is copied.
        sizes: The fixed sizes.
        mean: Mean of each RGB channel, in [0, 255].
        std: Standard deviation of each RGB channel.
        suppress: Non-maximum suppression of the format that it is exported to.

    Raises:
        ValueError: If more detections are wanted than the network can make.
    """

    def __init__(
        self, model: RCNN, sizes: FixedSizes, *, mean: Sequence[float], std: Sequence[float], suppress: Suppression
    ) -> None:
        super().__init__()
        self.model = with_sizes(model, sizes)
        self.model.roi_heads.static_shapes = True
        self.sizes, self.suppress = sizes, suppress
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("pixel_std", torch.tensor(std)[:, None, None])

    @torch.no_grad()
    def forward(self, images: Tensor, sizes: Tensor) -> dict[str, Tensor]:
        """Detections of B images.

        Args:
            images: (B, 3, h, w) uint8 RGB; anything outside each image.
            sizes: (B, 2) int64 height and width of each image inside that, in pixels.

        Returns:
            D slots per image, best score first, zeros in those that are not taken: ``boxes`` (B, D, 4) in pixels of
            what went in, ``scores`` (B, D), ``labels`` (B, D) int64, ``masks`` (B, D, M, M) probabilities on a grid
            over the box, ``mask_scores`` (B, D) that rank the masks, ``valid`` (B, D) bool, whether a slot is taken.
        """
        heads = self.model.roi_heads
        limits = sizes.flip(1).repeat(1, 2).float()
        features = self.model.features(self._normalized(images, sizes))
        outputs = heads.inference_loops(features, self._propose(features, limits), limits)
        probabilities, boxes = heads.classify(outputs, limits, heads.schedule.score_fusion)
        selected = self._select(probabilities, boxes, outputs[-1].samples.rois.valid)
        masks, mask_scores = heads.predict_masks(features, selected, outputs)
        valid = selected.rois.valid
        return {
            "boxes": torch.where(valid[..., None], selected.rois.boxes, 0.0),
            "scores": torch.where(valid, selected.scores, 0.0),
            "labels": torch.where(valid, selected.labels, 0),
            "masks": torch.where(valid[..., None, None], masks, 0.0),
            "mask_scores": torch.where(valid, mask_scores, 0.0),
            "valid": valid,
        }

    def _normalized(self, images: Tensor, sizes: Tensor) -> Tensor:
        """(B, 3, H, W) float32, zero outside each image."""
        height, width = self.sizes.image
        rows = torch.arange(height, device=images.device) < sizes[:, :1]  # (B, h)
        columns = torch.arange(width, device=images.device) < sizes[:, 1:]  # (B, w)
        inside = (rows[:, :, None] & columns[:, None, :])[:, None]
        pixels = torch.where(inside, (images.float() - self.pixel_mean) / self.pixel_std, 0.0)
        return F.pad(pixels, (0, self.sizes.canvas[1] - width, 0, self.sizes.canvas[0] - height))

    def _propose(self, features: Sequence[Tensor], limits: Tensor) -> Rois:
        """What `RPN.propose` does; levels with fewer anchors than the largest get empty places."""
        settings = self.model.rpn.eval_proposals
        scores, boxes = self.model.rpn.candidates(features, limits)
        places = max(level.shape[1] for level in scores)
        score = torch.stack([F.pad(level, (0, places - level.shape[1]), value=-1.0) for level in scores], dim=1)
        box = torch.stack([F.pad(level, (0, 0, 0, places - level.shape[1])) for level in boxes], dim=1)
        keep = self.suppress(  # (B * levels, 1, P)
            box.flatten(0, 1),
            score.flatten(0, 1)[:, None],
            settings.nms_threshold,
            EVERY_OBJECTNESS,
            settings.per_image,
        )
        flat_keep, flat_score = keep.reshape(len(limits), -1), score.flatten(1)  # (B, levels * P)
        index, valid = top_per_image(flat_keep, flat_score, settings.per_image)
        return Rois(box.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 4)), valid)

    def _select(self, probabilities: Tensor, boxes: Tensor, valid: Tensor) -> SelectedBoxes:
        """What `roi.inference.select_boxes` does, with all candidates at once; arguments as there."""
        settings = self.model.roi_heads.detection
        images, rois, classes = *valid.shape, probabilities.shape[2] - 1
        has_own_boxes = boxes.ndim == 4  # every class
        scores = torch.where(valid[..., None], probabilities[..., :classes], -1.0)  # (B, R, K)
        rows = scores.transpose(1, 2)
        if has_own_boxes:
            boxes = boxes.transpose(1, 2).flatten(0, 1)  # (B * K, R, 4)
            rows = rows.reshape(images * classes, 1, rois)
        keep = self.suppress(
            boxes, rows, settings.nms_threshold, settings.score_threshold, settings.max_detections
        ).view(images, classes, rois)
        index, taken = top_per_image(keep.transpose(1, 2).flatten(1), scores.flatten(1), settings.max_detections)
        row, label = index // classes, index % classes
        places = label * rois + row if has_own_boxes else row
        box = boxes.reshape(images, -1, 4).gather(1, places[..., None].expand(-1, -1, 4))
        return SelectedBoxes(Rois(box, taken), scores.flatten(1).gather(1, index), label, row)


def with_sizes(model: RCNN, sizes: FixedSizes) -> RCNN:
    """A copy for inference that makes as many proposals and detections as ``sizes`` says.

    Raises:
        ValueError: If more detections are wanted than there can be.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    proposals, heads = model.rpn.eval_proposals, model.roi_heads
    per_image = sizes.proposals or proposals.per_image
    detections = sizes.detections or heads.detection.max_detections
    if detections > per_image * model.num_classes:
        limit = f"{per_image} proposals times {model.num_classes} classes"
        raise ValueError(f"detections={detections} are more than {limit}: ask for fewer, or for more proposals")
    model.rpn.eval_proposals = replace(proposals, per_image=per_image)
    heads.detection = replace(heads.detection, max_detections=detections)
    return model
