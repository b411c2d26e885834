"""The page's diagrams as SVG: AP against loops and parameters, IoU histograms, losses.

Text stays text, colours are the page's, and no id occurs twice.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from r3cnn.evaluation.metrics_format import RoiReport
from r3cnn.names import visible
from r3cnn.reporting.curves import Panel, Series, draw_panel, panels_of, read_series
from r3cnn.reporting.panels import COLORS, GRID, INK, dress
from r3cnn.reporting.rois import draw_histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A line's place in the legend tells its colour and dashes: 24 that differ. The page's own legend draws the same ones.
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))
SIZE = (4.2, 3.0)  # inches; small, so that the text can be read where a phone shows it
MARGINS = {"left": 0.13, "right": 0.97, "top": 0.91, "bottom": 0.16}  # shares of the figure
LEGEND_LINE = 0.08  # height of a line of the legend, share of the diagram
Lines = Mapping[int, Sequence[tuple[float, float]]]
"""Points in the order of x, by the number of the run in the table of runs, from 1; it is written at the last point."""
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# Matplotlib's colour -> the page's, which has one for light and one for dark surroundings.
PAGE_COLORS = {
    INK.lower(): "var(--ink)",
    GRID.lower(): "var(--grid)",
    "#ffffff": "var(--surface)",
    "#000000": "var(--ink)",
} | {color.lower(): f"var(--series-{number})" for number, color in enumerate(COLORS)}


@dataclass(frozen=True)
class Chart:
    """One diagram.

    Attributes:
        svg: An ``<svg>`` element.
        caption: What it shows, in words.
    """

    svg: str
    caption: str


def series_color(number: int) -> str:
    """Colour of the run with that number."""
    return COLORS[(number - 1) % len(COLORS)]


def series_dashes(number: int) -> tuple[float, ...]:
    """Dashes of that run's line, in units of its width; none: drawn through."""
    return DASHES[(number - 1) // len(COLORS) % len(DASHES)]


def loops_chart(lines: Lines, kind: str, name: str) -> Chart:
    """AP in percent after loop 1, 2, …, one line per run."""
    figure, axes = _with_lines(lines)
    loops = sorted({x for points in lines.values() for x, _ in points})
    axes.set_xticks(loops, [f"{loop:g}" for loop in loops])
    axes.margins(x=0.1)
    dress(axes, f"{kind} AP (%)", "evaluation loop")
    caption = f"Measured {kind} AP after each evaluation loop, one line per run; its number stands at its last point."
    return Chart(_to_svg(figure, name, caption), caption)


def parameters_chart(lines: Lines, kind: str, name: str) -> Chart:
    """AP in percent over millions of trainable parameters, one point per run."""
    figure, axes = _with_lines(lines)
    axes.margins(0.15)
    dress(axes, f"{kind} AP (%)", "trainable parameters (millions)")
    caption = f"Measured {kind} AP against the number of trainable parameters, one numbered point per run."
    return Chart(_to_svg(figure, name, caption), caption)


def _empty() -> tuple[Figure, Axes]:
    """A figure with one diagram, at the same place in each, so that they align side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE)  # a layout engine would take twice as long, and a page has hundreds
    figure.subplots_adjust(**MARGINS)
    return figure, figure.add_subplot()


def _with_lines(lines: Lines) -> tuple[Figure, Axes]:
    figure, axes = _empty()
    for number, points in lines.items():
        x, y = zip(*points, strict=True)
        dashes, color = series_dashes(number), series_color(number)
        style = (0, dashes) if dashes else "-"
        axes.plot(x, y, color=color, linestyle=style, marker="o", markersize=4.5, linewidth=1.8)
        axes.annotate(str(number), points[-1], (6, 0), textcoords="offset points", va="center", fontsize=9, color=INK)
    return figure, axes


def histogram_chart(report: RoiReport, name: str, title: str, letter: str, *, from_iou: float, top: float) -> Chart:
    """One panel of the paper's figure 2: RoIs per image by IoU, the loops upon one another.

    Args:
        report: What ``roi_statistics_train.json`` or ``roi_statistics.json`` holds.
        name: Unique in the page.
        title: The run's.
        letter: Of the panel.
        from_iou: Lower bins are left out.
        top: Upper end of the scale, which all panels share.
    """
    figure, axes = _empty()
    draw_histogram(axes, report, from_iou)
    axes.set_ylim(0, top)
    axes.set_ylabel("RoIs per image", fontsize=9, color=INK)
    dress(axes, f"({letter})", "IoU with the best object")
    caption = f"({letter}) {title}"
    return Chart(_to_svg(figure, name, f"IoU histogram of the RoIs offered to each loop: {caption}"), caption)


def histogram_top(reports: Sequence[RoiReport], from_iou: float) -> float:
    """Upper end of a scale on which all histograms fit, with room for a legend of one line per loop."""
    highest, lines = 0.0, 1
    for report in reports:
        first = int(np.searchsorted(np.array(report["bin_edges"]), from_iou - 1e-9))
        counts = np.sum([loop["histogram"][first:] for loop in report["loops"].values()], axis=0)
        highest = max(highest, float(counts.max()) / max(report["images"], 1))
        lines = max(lines, len(report["loops"]))
    free = max(1 - LEGEND_LINE * (lines + 0.5), 0.3)
    return highest / free or 1.0


def loss_charts(metrics_csv: Path, name: str, max_points: int) -> list[Chart]:
    """Losses, learning rate and validation AP of one run over its steps.

    Args:
        metrics_csv: As Lightning's CSV logger writes it.
        name: Unique in the page.
        max_points: Longer curves are averaged down to so many points.

    Raises:
        ValueError: If the file has no column ``step``.
    """
    series = {column: thinned(values, max_points) for column, values in read_series(metrics_csv).items()}
    panels = [panel for panel in panels_of(list(series)) if panel.curves]
    return [_loss_chart(panel, series, f"{name}-{number}") for number, panel in enumerate(panels, start=1)]


def _loss_chart(panel: Panel, series: dict[str, Series], name: str) -> Chart:
    figure, axes = _empty()
    draw_panel(axes, panel, series)
    factor = 100 if panel.is_percent else 1
    ends = ", ".join(f"{label} {factor * series[column][1][-1]:.3g}".strip() for label, column in panel.curves.items())
    caption = f"At the end: {ends}"
    return Chart(_to_svg(figure, name, f"{panel.title} over the training steps. {caption}"), caption)


def thinned(series: Series, max_points: int) -> Series:
    """Means of neighbours, so that at most ``max_points`` are left; the last step stays."""
    steps, values = series
    if len(steps) <= max_points:
        return series
    means = np.array([part.mean() for part in np.array_split(values, max_points)])
    last = np.array([part[-1] for part in np.array_split(steps, max_points)])
    return last, means


def _to_svg(figure: Figure, name: str, label: str) -> str:
    """The diagram as one ``<svg>`` element that scales with its surroundings; equal figures give equal text.

    Args:
        figure: A figure of matplotlib.
        name: Unique in the page, letters, digits and hyphens; all ids inside begin with it.
        label: What it shows, for those who do not see it.
    """
    import matplotlib

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(buffer.getvalue())
    _drop(root)
    for element in root.iter():
        _settle(element, name)
    for unwanted in ("width", "height", "version"):
        root.attrib.pop(unwanted, None)
    root.attrib |= {"role": "img", "aria-label": visible(label), "class": "plot"}
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _drop(root: ElementTree.Element) -> None:
    """Removes metadata and style sheets; the latter would apply to the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)


def _settle(element: ElementTree.Element, name: str) -> None:
    """Puts ``name`` before the element's ids and the page's colours into its style."""
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif key == "style":
            plain = re.sub(r"font-family: [^;]*; ?", "", value)  # the page's font
            element.set(key, re.sub(r"#[0-9a-fA-F]{6}", _page_color, plain))
        elif value.startswith("url(#"):
            element.set(key, f"url(#{name}-{value[5:]}")


def _page_color(match: re.Match[str]) -> str:
    return PAGE_COLORS.get(match[0].lower(), match[0])
