"""Training curves from the ``metrics.csv`` of a run."""

from __future__ import annotations

import csv
import logging
import math
import re
from array import array
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from r3cnn.disk import open_regular
from r3cnn.reporting.panels import COLORS, dress, figure_in
from r3cnn.run_files import MOST_NUMBERS_BYTES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)
Series = tuple[NDArray[np.float64], NDArray[np.float64]]

COLUMNS_PER_ROW = 3
MOST_COLUMNS = 10_000


@dataclass(frozen=True)
class Panel:
    """One diagram: curves by their name in the legend.

    Attributes:
        title: Heading.
        curves: Column of the file by name in the legend, in the order of the legend.
        is_noisy: Draws a running mean over the raw values.
        is_percent: Shows fractions as percent, from 0.
    """

    title: str
    curves: dict[str, str]
    is_noisy: bool = True
    is_percent: bool = False


def plot_training_curves(metrics_csv: Path, path: Path) -> None:
    """Draws the losses (total, RPN, and per loop raw), the learning rate and the validation AP over the steps.

    What the file has no column for is left out; without any of these there is no picture.

    Args:
        metrics_csv: As Lightning's CSV logger writes it; needs a column ``step``.
        path: PNG, PDF or SVG file.

    Raises:
        ValueError: If the file has no column ``step``.
    """
    series = read_series(metrics_csv)
    panels = [panel for panel in panels_of(list(series)) if panel.curves]
    if not panels:  # a run shorter than the interval of logging
        log.info("%s has no losses, learning rate or AP yet, so there are no curves", metrics_csv)
        return
    across = min(COLUMNS_PER_ROW, len(panels))
    down = math.ceil(len(panels) / across)
    with figure_in(path, 4.4 * across, 3.1 * down) as figure:
        for number, panel in enumerate(panels, start=1):
            draw_panel(figure.add_subplot(down, across, number), panel, series)


def read_series(metrics_csv: Path) -> dict[str, Series]:
    """Steps and finite values of each column that has any; the last value counts where a step has several.

    Raises:
        ValueError: If there is no column ``step``.
    """
    points: dict[str, tuple[array[float], array[float]]] = {}
    with TextIOWrapper(open_regular(metrics_csv, MOST_NUMBERS_BYTES), "utf-8", "replace", newline="") as file:
        rows = csv.reader(file)
        try:
            columns = next(rows, ["step"])  # nothing at all is what a killed run may leave
            if "step" not in columns or len(columns) > MOST_COLUMNS:
                raise ValueError(f"{metrics_csv} has no column 'step', or more than {MOST_COLUMNS} columns")
            at = columns.index("step")
            for row in rows:
                step = _number(row[at]) if len(row) > at else math.nan
                for name, cell in zip(columns, row, strict=False) if math.isfinite(step) else ():
                    if name != "step" and math.isfinite(value := _number(cell)):
                        steps, values = points.setdefault(name, (array("d"), array("d")))
                        steps.append(step)
                        values.append(value)
        except csv.Error as error:
            raise ValueError(f"{metrics_csv} is no table: {error}") from error
    return {name: _last_values(np.array(steps), np.array(values)) for name, (steps, values) in points.items()}


def _last_values(steps: NDArray[np.float64], values: NDArray[np.float64]) -> Series:
    """In the order of the steps, each once."""
    found, last = np.unique(steps[::-1], return_index=True)
    return found, values[::-1][last]


def _number(cell: str) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan


def panels_of(columns: list[str]) -> list[Panel]:
    """Which column goes where; Lightning's endings ``_step`` and ``_epoch`` are both known."""
    known = {re.sub(r"_(step|epoch)$", "", name): name for name in sorted(columns)}
    known |= {re.sub(r"_step$", "", name): name for name in columns if not name.endswith("_epoch")}
    total = {"total": known["train/loss"]} if "train/loss" in known else {}
    rpn = {name: known[f"train/rpn/{name}"] for name in ("objectness", "box") if f"train/rpn/{name}" in known}
    panels = [Panel("total loss", total), Panel("RPN losses", rpn)]
    panels += [
        Panel(f"{title} loss per loop, unweighted", _per_loop(known, rf"train/loop(\d+)/{key}"))
        for key, title in (("cls", "class"), ("box", "box"), ("mask", "mask"))
    ]
    panels += [
        Panel(f"validation {kind} AP (%)", _aps(known, kind), is_noisy=False, is_percent=True)
        for kind in ("box", "mask")
    ]
    rates = {name: name for name in columns if re.match(r"(train/)?(lr|learning_rate)([-/_].*)?$", name)}
    return [*panels, Panel("learning rate", rates if len(rates) != 1 else {"": next(iter(rates))}, is_noisy=False)]


def _per_loop(known: dict[str, str], pattern: str) -> dict[str, str]:
    found = {int(match[1]): name for key, name in known.items() if (match := re.fullmatch(pattern, key))}
    return {f"loop {loop}": found[loop] for loop in sorted(found)}


def _aps(known: dict[str, str], kind: str) -> dict[str, str]:
    """AP per loop; without loops, the one AP."""
    loops = _per_loop(known, rf"val/loop(\d+)/{kind}_ap")
    alone = known.get(f"val/{kind}_ap")
    return loops or ({"AP": alone} if alone else {})


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of the last ``window`` values up to each one; of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    return np.asarray((sums[stop] - sums[start]) / (stop - start))


def draw_panel(axes: Axes, panel: Panel, series: dict[str, Series]) -> None:
    """Draws one diagram over the steps."""
    lowest, highest, last = 0.0, 0.0, 1.0
    for number, (label, column) in enumerate(panel.curves.items()):
        steps, values = series[column]
        color = COLORS[number % len(COLORS)]
        values = 100 * values if panel.is_percent else values
        highest = max(highest, float(np.quantile(values, 0.995)))  # a spike may leave the diagram
        if panel.is_noisy and len(values) > 20:
            axes.plot(steps, values, color=color, alpha=0.22, linewidth=0.8)
            values = running_mean(values, max(5, len(values) // 25))
        marker = "o" if len(values) <= 20 else None
        axes.plot(steps, values, color=color, linewidth=1.8, marker=marker, markersize=3.5, label=label)
        lowest, highest, last = min(lowest, values.min()), max(highest, values.max()), max(last, steps[-1])
    axes.set_ylim(1.05 * lowest, 1.08 * highest or 1)
    axes.set_xlim(0, 1.02 * last)
    dress(axes, panel.title, "step", grid="both")
    if any(panel.curves) and len(panel.curves) > 1:
        axes.legend(frameon=False, fontsize=8.5)
