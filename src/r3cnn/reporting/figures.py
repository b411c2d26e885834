"""Pictures of detections: beside the ground truth, loop by loop, and on the image file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import box_iou

from r3cnn.evaluation.paste import paste_and_encode, windows_of
from r3cnn.names import shortened
from r3cnn.reporting.drawing import GAP, LEGEND_HEIGHT, Color, Mark, draw_marks, instance_color, iou_color
from r3cnn.reporting.fonts import default_font, pillow_font
from r3cnn.structures import Detections, Size, Target

MAX_LABELS = 40
PANEL_SIDES = (560, 900)
LEGEND_WIDTH = 180
INK: Color = (32, 32, 36)
PAPER: Color = (255, 255, 255)
TRUTH: Color = (255, 255, 255)


def overlay(
    image: Tensor, detections: Detections, class_names: Sequence[str], path: Path, *, score_threshold: float = 0.5
) -> None:
    """Saves an image with masks, boxes and labels in its own size; the suffix of ``path`` is the format.

    Args:
        image: (3, H, W) uint8 RGB.
        detections: In pixels of ``image``.
        class_names: Name of each label.
        path: PNG or JPEG file.
        score_threshold: Detections with a lower score are left out.
    """
    marks = prediction_marks(detections, _size(image), class_names, score_threshold)
    _save(draw_marks(to_pillow(image), marks), path)


def draw_predictions(
    image: Tensor,
    detections: Detections,
    ground_truth: Target,
    class_names: Sequence[str],
    path: Path,
    *,
    score_threshold: float = 0.5,
) -> None:
    """Saves the predictions beside the ground truth; an object that was found has the same colour on both sides.

    Args:
        image: (3, h, w) uint8 RGB.
        detections: In pixels of ``image``.
        ground_truth: In pixels of ``image``.
        class_names: Name of each label.
        path: PNG or JPEG file.
        score_threshold: Detections with a lower score are left out.
    """
    predicted = prediction_marks(detections, _size(image), class_names, score_threshold)
    truth = truth_marks(ground_truth, class_names)
    predicted = _colored_like(predicted, truth)
    panels = [
        (f"prediction: {len(predicted)} with score ≥ {score_threshold:g}", predicted),
        (f"ground truth: {len(truth)}", truth),
    ]
    _save(_side_by_side(to_pillow(image), panels), path)


def draw_loop_strip(
    image: Tensor,
    per_loop: Sequence[Detections],
    ground_truth: Target,
    path: Path,
    *,
    score_threshold: float = 0.5,
) -> None:
    """Saves one strip with the boxes after loop 1, 2, …, coloured by their IoU with the best fitting ground truth.

    Args:
        image: (3, h, w) uint8 RGB.
        per_loop: Detections after each loop, in pixels of ``image``.
        ground_truth: In pixels of ``image``; drawn dashed in white.
        path: PNG or JPEG file.
        score_threshold: Detections with a lower score are left out.
    """
    dashed = [Mark(_rectangle(box), TRUTH, is_outline=True) for box in ground_truth.boxes.tolist()]
    panels = []
    for loop, found in enumerate(per_loop, start=1):
        boxes = found.boxes[found.scores >= score_threshold].cpu()
        ious = best_ious(boxes, ground_truth.boxes.cpu())
        is_labelled = len(boxes) <= MAX_LABELS
        marks = [
            Mark(_rectangle(box), iou_color(iou), f"{iou:.2f}" if is_labelled else "")
            for box, iou in zip(boxes.tolist(), ious.tolist(), strict=True)
        ]
        mean = f"mean IoU {ious.mean():.3f}" if len(ious) and len(ground_truth) else "no IoU"
        panels.append((f"loop {loop}: {len(boxes)} boxes, {mean}", marks + dashed))
    _save(_with_legend(_side_by_side(to_pillow(image), panels)), path)


def best_ious(boxes: Tensor, truth: Tensor) -> Tensor:
    """(D,) IoU of each box with the ground truth that it overlaps most; 0 where there is none."""
    if not len(truth) or not len(boxes):
        return torch.zeros(len(boxes))
    return box_iou(boxes.float(), truth.float()).max(dim=1).values


def prediction_marks(
    detections: Detections, size: Size, class_names: Sequence[str], score_threshold: float
) -> list[Mark]:
    """Detections from a score on, best first, with pasted masks cut to their boxes."""
    keep = (detections.scores >= score_threshold).nonzero()[:, 0]
    keep = keep[detections.scores[keep].argsort(descending=True, stable=True)]
    boxes, scores, labels = detections.boxes[keep], detections.scores[keep].tolist(), detections.labels[keep].tolist()
    windows = windows_of(boxes, size)
    names = _worth_saying(class_names)
    codes = paste_and_encode(detections.masks[keep], boxes, size, threshold=detections.mask_threshold).counts
    marks = []
    for number, (box, counts, (x1, y1, x2, y2)) in enumerate(zip(boxes.tolist(), codes, windows, strict=True)):
        mask = coco_mask.decode({"size": [*size], "counts": counts})[y1:y2, x1:x2].astype(bool)
        text = f"{names[labels[number]]} {scores[number]:.2f}".strip() if len(keep) <= MAX_LABELS else ""
        marks.append(Mark(_rectangle(box), instance_color(number), text, mask, (x1, y1)))
    return marks


def truth_marks(target: Target, class_names: Sequence[str]) -> list[Mark]:
    """Ground truth with its masks cut to their windows."""
    marks, start, pixels, names = [], 0, target.masks.pixels.cpu().numpy(), _worth_saying(class_names)
    rows = zip(target.boxes.tolist(), target.labels.tolist(), target.masks.windows.tolist(), strict=True)
    for number, (box, label, (x, y, width, height)) in enumerate(rows):
        mask = pixels[start : start + width * height].reshape(height, width).astype(bool)
        start += width * height
        text = names[label] if len(target) <= MAX_LABELS else ""
        marks.append(Mark(_rectangle(box), instance_color(number), text, mask, (x, y)))
    return marks


def _worth_saying(class_names: Sequence[str]) -> Sequence[str]:
    """The names, or nothing where there is but one class: it would hide small objects and tell nothing."""
    return [*map(shortened, class_names)] if len(class_names) > 1 else [""]


def _rectangle(box: Sequence[float]) -> tuple[float, float, float, float]:
    return box[0], box[1], box[2], box[3]


def _size(image: Tensor) -> Size:
    return image.shape[-2], image.shape[-1]


def to_pillow(image: Tensor) -> Image.Image:
    """(3, H, W) uint8 RGB tensor -> pillow image."""
    if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
        raise ValueError(f"image must be (3, H, W) uint8, got {tuple(image.shape)} {image.dtype}")
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))


def _side_by_side(image: Image.Image, panels: Sequence[tuple[str, Sequence[Mark]]]) -> Image.Image:
    """Titled panels in a row; small images are enlarged, large ones reduced."""
    longest = max(image.size)
    scale = min(max(longest, PANEL_SIDES[0]), PANEL_SIDES[1]) / longest
    drawn = [draw_marks(image, marks, scale=scale) for _, marks in panels]
    width, height = drawn[0].size
    font = pillow_font(default_font(), round(max(width, 480) / 28))
    title_height = round(1.9 * font.getbbox("Äg")[3])
    sheet = Image.new("RGB", (len(drawn) * (width + GAP) + GAP, title_height + height + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (panel, (title, _)) in enumerate(zip(drawn, panels, strict=True)):
        left = GAP + number * (width + GAP)
        draw.text((left, title_height / 2), title, fill=INK, font=font, anchor="lm")
        sheet.paste(panel, (left, title_height))
    return sheet


def _with_legend(sheet: Image.Image) -> Image.Image:
    """Adds the scale of IoU colours below a strip."""
    font = pillow_font(default_font(), 15)
    legend = Image.new("RGB", (sheet.width, sheet.height + LEGEND_HEIGHT), PAPER)
    legend.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(legend)
    middle, left = sheet.height + 12, GAP
    text = "IoU with the best fitting ground truth (dashed):   ≤ 0.5"
    draw.text((left, middle), text, fill=INK, font=font, anchor="lm")
    left += round(draw.textlength(text, font=font)) + 8
    for column in range(LEGEND_WIDTH):
        color = iou_color(0.5 + 0.5 * column / LEGEND_WIDTH)
        draw.line((left + column, middle - 8, left + column, middle + 8), fill=color)
    draw.text((left + LEGEND_WIDTH + 8, middle), "1.0", fill=INK, font=font, anchor="lm")
    return legend


def _colored_like(predicted: Sequence[Mark], truth: Sequence[Mark]) -> list[Mark]:
    """Gives each prediction the colour of its ground truth (box IoU of at least 0.5, best score first)."""
    free = set(range(len(truth)))
    colored = []
    overlaps = box_iou(_boxes(predicted), _boxes(truth)).tolist()
    for number, (mark, ious) in enumerate(zip(predicted, overlaps, strict=True)):
        best = max(free, key=lambda one: ious[one], default=None)
        if best is None or ious[best] < 0.5:
            colored.append(replace(mark, color=instance_color(len(truth) + number)))
            continue
        free.remove(best)
        colored.append(replace(mark, color=truth[best].color))
    return colored


def _boxes(marks: Sequence[Mark]) -> Tensor:
    return torch.tensor([mark.box for mark in marks]).reshape(-1, 4)


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        picture.save(path, quality=92)
    else:
        picture.save(path)
