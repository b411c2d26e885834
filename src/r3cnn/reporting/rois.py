"""RoI statistics: tables on the terminal, figure 2 of the paper over several runs, and one run in detail."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from r3cnn.evaluation.metrics_format import Kinds, LoopRois, RoiReport
from r3cnn.names import shortened, visible
from r3cnn.reporting.console import decimal, percent, plain_table, terminal
from r3cnn.reporting.panels import COLORS, INK, PANEL_SIZE, dress, figure_in, loop_bars
from r3cnn.run_files import own_file, read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console
    from rich.table import Table

COLUMNS = ("loop", "IoU ≥", "RoIs", "positive", "S", "M", "L", "balance", "sum", "gain", "worse")
CAPTION = (
    "per image: RoIs, positives (also by object size); balance of the loop and of all so far; IoU gain of positives"
)
MOST_CLASSES = 8  # that are drawn, those with most positives


def read_roi_report(path: Path) -> RoiReport:
    """Reads ``roi_statistics.json`` or ``roi_statistics_train.json``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it was not written by ``RoiLog``.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: training and evaluation write it unless callbacks leaves out `rois`"
        )
    report = read_json(own_file(path.parent, path.name), RoiReport)
    edges = report["bin_edges"]
    if not report["loops"] or any(len(loop["histogram"]) != len(edges) - 1 for loop in report["loops"].values()):
        raise ValueError(f"{path} has no loop, or not one count for each of {len(edges) - 1} bins")
    return report


def print_roi_tables(reports: Mapping[str, RoiReport], console: Console | None = None) -> None:
    """Prints one table per run.

    Args:
        reports: By name of the run.
        console: Where to; standard output by default.
    """
    console = console or terminal()
    for name, report in reports.items():
        console.print(roi_table(name, report))


def roi_table(name: str, report: RoiReport) -> Table:
    """One row per loop."""
    table = plain_table(f"{visible(name)}, {report['images']} images", COLUMNS, caption=CAPTION)
    images = max(report["images"], 1)
    for number, loop in report["loops"].items():
        gain = loop["refined_positives"]
        counts = [loop["rois"], loop["positives"], *(kinds["positives"] for kinds in loop["per_size"].values())]
        per_image = [f"{count / images:.1f}" for count in counts]
        threshold, worse = f"{loop['iou_threshold']:g}", percent(gain["share_worse"])
        balances = [decimal(loop["balance"], 3), decimal(loop["balance_so_far"], 3), decimal(gain["mean_gain"], 3)]
        table.add_row(number, threshold, *per_image, *balances, worse)
    return table


def draw_figure_2(reports: Mapping[str, RoiReport], path: Path, *, from_iou: float) -> None:
    """Draws the IoU histogram of the RoIs that each loop was offered, the loops upon one another, one panel per run.

    Figure 2 of the paper (arXiv 2104.01329) shows Mask R-CNN (a), R3-CNN with falling (b) and rising thresholds (c).
    All panels share their scale: RoIs per image.

    Args:
        reports: By name of the run, in the order of the panels.
        path: PNG, PDF or SVG file.
        from_iou: Bins below this are left out, since they hold nearly everything.
    """
    with figure_in(path, PANEL_SIZE[0] * len(reports), PANEL_SIZE[1]) as figure:
        panels = figure.subplots(1, len(reports), squeeze=False, sharey=True)[0]
        for letter, axes, (name, report) in zip(string.ascii_lowercase, panels, reports.items(), strict=False):
            draw_histogram(axes, report, from_iou)
            dress(axes, f"({letter}) {shortened(name)}", "IoU with the best object")
        panels[0].set_ylabel("RoIs per image", fontsize=9, color=INK)


def draw_roi_statistics(report: RoiReport, path: Path) -> None:
    """Draws one run: RoIs by IoU and loop, what refinement gains by IoU, and positives by object size and by class.

    Args:
        report: What to draw.
        path: PNG, PDF or SVG file.
    """
    per_size = {name: loop["per_size"] for name, loop in report["loops"].items()}
    per_class = {name: loop["per_class"] for name, loop in report["loops"].items()}
    with figure_in(path, PANEL_SIZE[0] * 4, PANEL_SIZE[1]) as figure:
        histogram, gains, sizes, classes = figure.subplots(1, 4)
        draw_histogram(histogram, report, min(loop["iou_threshold"] for loop in report["loops"].values()))
        dress(histogram, "RoIs per image, before refinement", "IoU with the best object")
        for number, (name, loop) in enumerate(report["loops"].items()):
            _gain_curve(gains, report["bin_edges"], loop, f"loop {name}", COLORS[number % len(COLORS)])
        gains.axhline(0, color=INK, linewidth=0.8)
        dress(gains, "mean gain of IoU by refinement", "IoU before")
        _positive_bars(sizes, per_size, report["images"], list(next(iter(per_size.values()))))
        dress(sizes, "positives per image, by object size")
        _positive_bars(classes, per_class, report["images"], _largest(per_class))
        for label in classes.get_xticklabels():  # long names end at their bars, so that they do not overlap
            label.set(rotation=30, ha="right", rotation_mode="anchor")
        dress(classes, "positives per image, by class")


def draw_histogram(axes: Axes, report: RoiReport, from_iou: float) -> None:
    """Draws how many RoIs each loop was offered per image by IoU, the loops upon one another, from an IoU on."""
    edges = np.array(report["bin_edges"])
    first = int(np.searchsorted(edges, from_iou - 1e-9))
    left, width = edges[first:-1], np.diff(edges[first:])
    below = np.zeros(len(left))
    for number, (name, loop) in enumerate(report["loops"].items()):
        heights = np.array(loop["histogram"][first:]) / max(report["images"], 1)
        even, even_so_far = decimal(loop["balance"], 2), decimal(loop["balance_so_far"], 2)
        label = f"loop {name}, ≥ {loop['iou_threshold']:g}: balance {even}, sum {even_so_far}"
        color = COLORS[number % len(COLORS)]
        axes.bar(left, heights, width, bottom=below, align="edge", color=color, edgecolor="white", label=label)
        below += heights
    axes.set_xlim(edges[first], 1)
    axes.legend(frameon=False, fontsize=7.5)


def _gain_curve(axes: Axes, edges: Sequence[float], loop: LoopRois, label: str, color: str) -> None:
    columns = [(at, gain["mean_gain"]) for at, gain in zip(edges, loop["refined_by_iou"], strict=False)]
    points = [(at, gain) for at, gain in columns if gain is not None]
    if points:
        left, gains = zip(*points, strict=True)
        middles = np.array(left) + (edges[1] - edges[0]) / 2
        axes.plot(middles, gains, color=color, marker="o", markersize=3, linewidth=1.5, label=label)
    axes.set_xlim(0, 1)


def _largest(loops: Mapping[str, Mapping[str, Kinds]]) -> list[str]:
    """Names of the kinds with most positives in all loops together, the first ones of many."""
    names = next(iter(loops.values()))
    return sorted(names, key=lambda name: -sum(kinds[name]["positives"] for kinds in loops.values()))[:MOST_CLASSES]


def _positive_bars(axes: Axes, loops: Mapping[str, Mapping[str, Kinds]], images: int, names: Sequence[str]) -> None:
    heights = {loop: [kinds[name]["positives"] / max(images, 1) for name in names] for loop, kinds in loops.items()}
    loop_bars(axes, heights, [*map(shortened, names)])
