"""What a data set consists of, in numbers: sizes, classes, areas, aspect ratios."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from r3cnn.data.annotations import Annotations
from r3cnn.data.transforms import resized_size

Numbers = npt.NDArray[np.float64]
COCO_AREAS = (32**2, 96**2)
QUANTILES = {"min": 0.0, "q05": 0.05, "median": 0.5, "q95": 0.95, "max": 1.0}
NUM_BINS = 24
IN_OCTAVES = ("object_side", "object_aspect", "network_side")
"""Quantities whose bins grow with the value: as many for an octave of small values as for one of large values."""


def statistics_of(annotations: Annotations, classes: Sequence[str], image_size: tuple[int, int]) -> dict[str, object]:
    """Counts, quantiles and histograms as plain containers for JSON; objects are those that are trained on.

    ``quantity`` holds for each of ``image_width``, ``image_height`` and ``image_aspect`` (width / height) of the files,
    ``object_side`` (square root of the box area) and ``object_aspect`` (width / height) in pixels of the files,
    ``network_side`` (``object_side`` at the network's input) and ``objects_per_image`` its quantiles, mean and
    histogram. ``area_share`` says which part of the objects is small, medium and large as COCO draws the lines, by the
    area of their boxes in the files.

    Args:
        annotations: The sound records.
        classes: Names of the K classes.
        image_size: Upper bounds of the (shorter, longer) side at the network's input in pixels.
    """
    sizes, boxes = annotations.sizes.astype(np.float64), annotations.boxes.astype(np.float64)
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    per_image = np.diff(annotations.starts)
    scales = np.array([resized_size((h, w), image_size)[0] / h for h, w in annotations.sizes.tolist()])
    quantities: dict[str, Numbers] = {
        "image_width": sizes[:, 1],
        "image_height": sizes[:, 0],
        "image_aspect": sizes[:, 1] / sizes[:, 0],
        "object_side": np.sqrt(widths * heights),
        "object_aspect": widths / heights,
        "network_side": np.sqrt(widths * heights) * np.repeat(scales, per_image),
        "objects_per_image": per_image.astype(np.float64),
    }
    return {
        "images": len(annotations),
        "images_without_objects": int((per_image == 0).sum()),
        "objects": len(annotations.labels),
        "crowds": len(annotations.crowds),
        "area_share": _area_share(widths * heights),
        "per_class": _per_class(annotations, classes),
        "quantity": {name: _summary(values, in_octaves=name in IN_OCTAVES) for name, values in quantities.items()},
    }


def _area_share(areas: Numbers) -> dict[str, float]:
    bounds = np.searchsorted(np.array(COCO_AREAS), areas, side="right")
    counts = np.bincount(bounds, minlength=3) / max(len(areas), 1)
    return dict(zip(("small", "medium", "large"), counts.tolist(), strict=True))


def _per_class(annotations: Annotations, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Objects of each class, and images that hold one."""
    images = np.repeat(np.arange(len(annotations)), np.diff(annotations.starts))
    objects = np.bincount(annotations.labels, minlength=len(classes))
    pairs = np.unique(np.stack([annotations.labels, images]), axis=1)[0]
    holding = np.bincount(pairs, minlength=len(classes))
    return {
        name: {"objects": int(count), "images": int(number)}
        for name, count, number in zip(classes, objects.tolist(), holding.tolist(), strict=True)
    }


def _summary(values: Numbers, *, in_octaves: bool) -> dict[str, object]:
    if not len(values):
        return {**dict.fromkeys(QUANTILES), "mean": None, "histogram": {"edges": [], "counts": []}}
    least, largest = float(values.min()), float(values.max())
    space = np.geomspace if in_octaves else np.linspace
    edges = space(least, largest if largest > least else least + 1, NUM_BINS + 1)
    edges[0], edges[-1] = least, max(edges[-1], largest)  # to the bit, so that no value falls out of its own range
    counts = np.histogram(values, edges)[0]
    quantiles = {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}
    histogram = {"edges": edges.tolist(), "counts": counts.tolist()}
    return {**quantiles, "mean": float(values.mean()), "histogram": histogram}
