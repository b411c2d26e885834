"""The look that our diagrams share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from r3cnn.reporting.fonts import families_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart for colour-blind readers; one per loop.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#202024"
GRID = "#d9d9de"
PANEL_SIZE = (4.6, 3.4)  # inches
DPI = 130


@contextmanager
def figure_in(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of that size in inches, without any window; saved as PNG, PDF or SVG once it is drawn.

    All text in it is text, ``$`` included, in fonts that have its characters where such are installed.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # said once by then
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        for axes in figure.axes:  # names at ticks are only written when somebody asks for them
            axes.get_xticklabels(), axes.get_yticklabels()
        for text in figure.findobj(Text):
            if not text.get_text().isascii():
                text.set_fontfamily(families_of(text.get_text()))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)


def dress(axes: Axes, title: str, below: str = "", *, grid: Literal["x", "y", "both"] = "y") -> None:
    """Gives a diagram its title and the label below it, in the look of all our diagrams."""
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(below, fontsize=9, color=INK)
    axes.tick_params(labelsize=8.5, colors=INK)
    axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def loop_bars(axes: Axes, heights: Mapping[str, Sequence[float]], names: Sequence[str]) -> None:
    """Draws a bar per loop and name, those of one name side by side."""
    width = 0.8 / len(heights)
    for number, (loop, each) in enumerate(heights.items()):
        at = [place + (number - (len(heights) - 1) / 2) * width for place in range(len(names))]
        axes.bar(at, each, width, color=COLORS[number % len(COLORS)], label=f"loop {loop}")
    axes.set_xticks(range(len(names)), names)
    axes.legend(frameon=False, fontsize=8)
