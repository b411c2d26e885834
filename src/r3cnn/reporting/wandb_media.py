"""Tables and pictures for Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from r3cnn.evaluation.metrics_format import Metrics
from r3cnn.reporting.drawing import Mark, draw_marks
from r3cnn.reporting.figures import PANEL_SIDES, prediction_marks, to_pillow, truth_marks
from r3cnn.structures import Detections, Target

if TYPE_CHECKING:
    import wandb

BACKGROUND = "background"
MAX_MASK_CLASSES = 255  # the library keeps one byte per pixel


def class_table(metrics: Metrics) -> wandb.Table:
    """AP of every class after the last loop, in [0, 1]; empty where there is no ground truth."""
    import wandb

    rows = [[name, values["box"], values["mask"]] for name, values in metrics["per_class"].items()]
    return wandb.Table(columns=["class", "box_ap", "mask_ap"], data=rows)


def loop_table(metrics: Metrics) -> wandb.Table:
    """All AP of every loop, in [0, 1]."""
    import wandb

    names = [*metrics["box"]]
    columns: list[str | int] = ["loop", *(f"{kind}_{name}" for kind in ("box", "mask") for name in names)]
    rows = [
        [int(loop), *(values[kind][name] for kind in ("box", "mask") for name in names)]
        for loop, values in metrics["loops"].items()
    ]
    return wandb.Table(columns=columns, data=rows)


def pictures_of(
    image: Tensor,
    loops: Sequence[Detections],
    class_names: Sequence[str],
    *,
    image_id: int,
    score_threshold: float,
    strip: Path,
) -> dict[str, wandb.Image | list[wandb.Image]]:
    """Overlays of all loops of an image, and the strip of its loops if there is one.

    An image has a name of its own in the browser: there a list of pictures has one size, and a slider through it.

    Args:
        image: (3, H, W) uint8 RGB.
        loops: What was found after each loop, in pixels of the image.
        class_names: Name of each label.
        image_id: What the pictures are called by.
        score_threshold: Detections with a lower score are left out.
        strip: Picture of the loops side by side.
    """
    import wandb

    overlays = [overlay_of(image, found, class_names, score_threshold) for found in loops]
    pictures: dict[str, wandb.Image | list[wandb.Image]] = {
        f"overlays/{image_id}": [
            wandb.Image(overlay, caption=f"loop {loop}") for loop, overlay in enumerate(overlays, start=1)
        ]
    }
    if strip.is_file():
        pictures[f"loop_strips/{image_id}"] = wandb.Image(str(strip))
    return pictures


def checkpoints_of(name: str, files: Sequence[Path], precision: Mapping[str, float]) -> wandb.Artifact:
    """Checkpoints as one artifact.

    Args:
        name: Of the artifact.
        files: Checkpoints; those that are not there are left out.
        precision: AP of the final weights, kept beside them.
    """
    import wandb

    artifact = wandb.Artifact(name, type="model", metadata=dict(precision))
    for path in files:
        if path.is_file():
            artifact.add_file(str(path))
    return artifact


def overlay_of(
    image: Tensor, detections: Detections, class_names: Sequence[str], score_threshold: float
) -> Image.Image:
    """An image with masks, boxes and labels drawn on it; a small one is enlarged, so that they can be read.

    Args:
        image: (3, H, W) uint8 RGB.
        detections: In pixels of ``image``.
        class_names: Name of each label.
        score_threshold: Detections with a lower score are left out.
    """
    marks = prediction_marks(detections, (image.shape[1], image.shape[2]), class_names, score_threshold)
    return draw_marks(to_pillow(image), marks, scale=max(1.0, PANEL_SIDES[0] / max(image.shape[1:])))


def panel_of(
    image: Tensor,
    detections: Detections,
    ground_truth: Target,
    class_names: Sequence[str],
    *,
    score_threshold: float,
) -> wandb.Image:
    """An image whose boxes and masks, found and true, are switched on and off in the browser.

    Args:
        image: (3, H, W) uint8 RGB.
        detections: In pixels of ``image``.
        ground_truth: In pixels of ``image``.
        class_names: Name of each label; in the browser 0 is the background and label 0 is 1. Masks of more than 255
            classes are left out.
        score_threshold: Detections with a lower score are left out.
    """
    import wandb

    size = (image.shape[1], image.shape[2])
    found = prediction_marks(detections, size, class_names, score_threshold)
    best_first = detections.scores.argsort(descending=True, stable=True)[: len(found)]
    labels, scores = detections.labels[best_first].tolist(), detections.scores[best_first].tolist()
    true, true_labels = truth_marks(ground_truth, class_names), ground_truth.labels.tolist()
    names = {0: BACKGROUND, **dict(enumerate(class_names, start=1))}
    boxes = {
        "found": [
            _box(mark, label, names) | {"scores": {"score": score}}
            for mark, label, score in zip(found, labels, scores, strict=True)
        ],
        "true": [_box(mark, label, names) for mark, label in zip(true, true_labels, strict=True)],
    }
    masks = {}
    if len(class_names) <= MAX_MASK_CLASSES:
        masks = {"found": class_pixels(size, found, labels), "true": class_pixels(size, true, true_labels)}
    return wandb.Image(
        to_pillow(image),
        boxes={key: {"box_data": data, "class_labels": names} for key, data in boxes.items()},
        masks={key: {"mask_data": pixels, "class_labels": names} for key, pixels in masks.items()},
    )


def _box(mark: Mark, label: int, names: Mapping[int, str]) -> dict[str, object]:
    """A box as the library wants it."""
    x1, y1, x2, y2 = mark.box
    position = {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2}
    return {
        "position": position,
        "domain": "pixel",
        "class_id": label + 1,
        "box_caption": mark.text or names[label + 1],
    }


def class_pixels(size: tuple[int, int], marks: Sequence[Mark], labels: Sequence[int]) -> NDArray[np.uint8]:
    """(H, W) label + 1 of the first mark that covers a pixel, 0 where none does.

    Args:
        size: Height and width of the image.
        marks: Objects, most important first.
        labels: Label of each of them.
    """
    pixels = np.zeros(size, dtype=np.uint8)
    for mark, label in [*zip(marks, labels, strict=True)][::-1]:
        if mark.mask is not None:
            (x, y), (height, width) = mark.corner, mark.mask.shape
            window = pixels[y : y + height, x : x + width]
            window[mark.mask[: window.shape[0], : window.shape[1]]] = label + 1
    return pixels
