"""Pictures of a data set: what it consists of, and its images as the network sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from r3cnn.names import shortened
from r3cnn.reporting.data_tables import QUANTITIES, Found, Histogram
from r3cnn.reporting.drawing import Mark, draw_marks
from r3cnn.reporting.figures import INK as DARK
from r3cnn.reporting.figures import to_pillow, truth_marks
from r3cnn.reporting.panels import COLORS, INK, dress, figure_in
from r3cnn.structures import Size, Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IN_OCTAVES = ("object_side", "network_side", "object_aspect")
PANELS = ("image_width", "image_height", "objects_per_image", "object_side", "network_side", "object_aspect")
MAX_CLASSES = 24
CROWD = (255, 255, 255)
SHORTEST_SIDE = 640


def plot_statistics(found: Mapping[str, Found], path: Path) -> None:
    """Draws sizes, aspect ratios and counts of all data sets over one another, and their classes.

    Args:
        found: Content of ``check.json``.
        path: PNG, PDF or SVG file.
    """
    known = {name: split["statistics"] for name, split in found.items() if split["statistics"]}
    counts = {
        name: {one: numbers["objects"] for one, numbers in statistics["per_class"].items()}
        for name, statistics in known.items()
    }
    with figure_in(path, 14.5, 6.4) as figure:
        grid = figure.add_gridspec(2, 4)
        for number, key in enumerate(PANELS):
            axes = figure.add_subplot(grid[number // 3, number % 3])
            for color, (name, statistics) in zip(COLORS, known.items(), strict=False):
                _draw_histogram(axes, statistics["quantity"][key]["histogram"], name, color)
            if key in IN_OCTAVES:
                axes.set_xscale("log", base=2)
                _plain_numbers(axes)
            dress(axes, QUANTITIES[key], grid="both")
            axes.set_ylabel("share (%)", fontsize=8.5, color=INK)
            axes.legend(frameon=False, fontsize=8.5)
        _draw_classes(figure.add_subplot(grid[:, 3]), counts)


def _plain_numbers(axes: Axes) -> None:
    """Writes 1024 for 2^10, since matplotlib would typeset the power as a formula."""
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def _draw_histogram(axes: Axes, histogram: Histogram, label: str, color: str) -> None:
    edges, counts = np.array(histogram["edges"]), np.array(histogram["counts"], dtype=np.float64)
    if not len(counts) or not counts.sum():
        return
    axes.stairs(100 * counts / counts.sum(), edges, color=color, fill=True, alpha=0.28)
    axes.stairs(100 * counts / counts.sum(), edges, color=color, linewidth=1.5, label=label)


def _draw_classes(axes: Axes, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Objects of the most frequent classes, a bar for each data set."""
    names = list(next(iter(counts.values())))
    names.sort(key=lambda name: -sum(one[name] for one in counts.values()))
    names = names[:MAX_CLASSES]
    thickness = 0.8 / len(counts)
    for number, (split, one) in enumerate(counts.items()):
        places = np.arange(len(names)) + number * thickness
        axes.barh(places, [one[name] for name in names], thickness, color=COLORS[number], label=split)
    axes.set_yticks(np.arange(len(names)) + 0.4 - thickness / 2, map(shortened, names))
    axes.invert_yaxis()
    if max(one[name] for one in counts.values() for name in names) > 0:
        axes.set_xscale("symlog")
        _plain_numbers(axes)
    axes.legend(frameon=False, fontsize=8.5)
    dress(axes, "objects per class", grid="both")


def draw_input(
    image: Tensor, target: Target, class_names: Sequence[str], path: Path, *, canvas: Size, padding: Sequence[float]
) -> None:
    """Saves an image on the canvas of its batch with boxes, masks and, dashed, crowds.

    Args:
        image: (3, h, w) uint8 RGB as it comes out of the data loader.
        target: In pixels of ``image``.
        class_names: Name of each label.
        path: PNG or JPEG file.
        canvas: Size of the network input in pixels.
        padding: Colour on [0, 255] that is zero after normalisation, as the padding is.
    """
    from PIL import Image

    sheet = Image.new("RGB", (canvas[1], canvas[0]), tuple(round(value) for value in padding))
    sheet.paste(to_pillow(image), (0, 0))
    crowds = [Mark((x1, y1, x2, y2), CROWD, "crowd", is_outline=True) for x1, y1, x2, y2 in target.crowds.tolist()]
    border = Mark((0.0, 0.0, float(image.shape[-1]), float(image.shape[-2])), DARK, is_outline=True)
    drawn = draw_marks(
        sheet, [*truth_marks(target, class_names), *crowds, border], scale=max(1.0, SHORTEST_SIDE / max(canvas))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(path)
