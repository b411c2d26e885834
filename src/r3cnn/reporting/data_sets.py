"""What was found in a data set: tables on the terminal, diagrams, and its images as the network sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from torch import Tensor

from r3cnn.names import shortened
from r3cnn.reporting.console import LONGEST_NAME, plain_table, terminal
from r3cnn.reporting.drawing import Mark, draw_marks
from r3cnn.reporting.figures import INK, to_pillow, truth_marks
from r3cnn.reporting.panels import COLORS, dress, figure_in
from r3cnn.reporting.panels import INK as PLOT_INK
from r3cnn.structures import Size, Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console
    from rich.table import Table

QUANTITIES = {
    "image_width": "image width (px)",
    "image_height": "image height (px)",
    "image_aspect": "image width / height",
    "objects_per_image": "objects per image",
    "object_side": "object side, √area of box (px)",
    "network_side": "object side at the network's input (px)",
    "object_aspect": "box width / height",
}
QUANTILES = {"min": "least", "q05": "5 %", "median": "median", "mean": "mean", "q95": "95 %", "max": "largest"}
MAX_CLASSES = 20  # in the table
IN_OCTAVES = ("object_side", "network_side", "object_aspect")
PANELS = ("image_width", "image_height", "objects_per_image", "object_side", "network_side", "object_aspect")
MAX_BARS = 24  # in the picture
CROWD = (255, 255, 255)
SHORTEST_SIDE = 640


class Histogram(TypedDict):
    """N counts between N + 1 edges."""

    edges: list[float]
    counts: list[int]


class Quantity(TypedDict):
    """Quantiles, mean and histogram; None where there is no value."""

    min: float | None
    q05: float | None
    median: float | None
    q95: float | None
    max: float | None
    mean: float | None
    histogram: Histogram


class Statistics(TypedDict):
    """Numbers of one data set, see `r3cnn.data.statistics`."""

    images: int
    images_without_objects: int
    objects: int
    crowds: int
    area_share: dict[str, float]
    per_class: dict[str, dict[str, int]]
    quantity: dict[str, Quantity]


class Found(TypedDict):
    """What ``check.json`` holds for one data set; ``statistics`` is empty if its file cannot be read."""

    file: str
    problems: list[str]
    notes: list[str]
    statistics: Statistics


def print_check(found: Mapping[str, Found], max_lines: int, console: Console | None = None) -> None:
    """Prints statistics, problems and notes of each data set.

    Args:
        found: Content of ``check.json``.
        max_lines: Sentences of each kind that are printed.
        console: Where to; standard output by default.
    """
    console = console or terminal()
    if any(split["statistics"] for split in found.values()):
        console.print(quantity_table(found))
        console.print(class_table(found))
    for name, split in found.items():
        console.print(f"{name}: {split['file']}", style="bold")
        if split["statistics"]:
            console.print(f"  {summary(split['statistics'])}")
        for title, sentences in (("problem", split["problems"]), ("note", split["notes"])):
            style = "bold red" if title == "problem" and sentences else None
            console.print(f"  {len(sentences)} {title}{'' if len(sentences) == 1 else 's'}", style=style)
            for sentence in sentences[:max_lines]:
                console.print(f"    {sentence}")
            if len(sentences) > max_lines:
                console.print(f"    … and {len(sentences) - max_lines} more")


def summary(statistics: Statistics) -> str:
    """One line: how many images and objects, and how large these are."""
    shares = ", ".join(f"{100 * share:.0f} % {name}" for name, share in statistics["area_share"].items())
    return (
        f"{statistics['images']} images ({statistics['images_without_objects']} without objects), "
        f"{statistics['objects']} objects ({shares}), {statistics['crowds']} crowds"
    )


def quantity_table(found: Mapping[str, Found]) -> Table:
    """Quantiles of sizes, aspect ratios and counts."""
    table = plain_table("Sizes", ("quantity", "set", *QUANTILES.values()), names=2)
    for key, title in QUANTITIES.items():
        for number, (name, statistics) in enumerate(_known(found)):
            cells = [number_text(statistics["quantity"][key][quantile]) for quantile in QUANTILES]  # type: ignore[literal-required]
            table.add_row(title if number == 0 else "", name, *cells)
    return table


def class_table(found: Mapping[str, Found]) -> Table:
    """Objects and images of the most frequent classes."""
    known = _known(found)
    names = list(known[0][1]["per_class"])
    names.sort(key=lambda name: -sum(statistics["per_class"][name]["objects"] for _, statistics in known))
    hidden = len(names) - MAX_CLASSES
    headings = [heading for split, _ in known for heading in (f"{split} objects", "images")]
    caption = f"and {hidden} rarer ones" if hidden > 0 else None
    table = plain_table("Classes", ("class", *headings), names=1, caption=caption)
    for name in names[:MAX_CLASSES]:
        cells = [str(row["per_class"][name][key]) for _, row in known for key in ("objects", "images")]
        table.add_row(shortened(name, LONGEST_NAME), *cells)
    return table


def number_text(value: float | None) -> str:
    """Four digits at most; a dash where there is no value."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def _known(found: Mapping[str, Found]) -> Sequence[tuple[str, Statistics]]:
    return [(name, split["statistics"]) for name, split in found.items() if split["statistics"]]


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
            axes.set_ylabel("share (%)", fontsize=8.5, color=PLOT_INK)
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
    names = names[:MAX_BARS]
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
    border = Mark((0.0, 0.0, float(image.shape[-1]), float(image.shape[-2])), INK, is_outline=True)
    drawn = draw_marks(
        sheet, [*truth_marks(target, class_names), *crowds, border], scale=max(1.0, SHORTEST_SIDE / max(canvas))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(path)
