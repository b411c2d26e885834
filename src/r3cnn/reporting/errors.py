"""Error analysis: what errors cost per loop, precision-recall curves and confusion matrices, in tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from r3cnn.evaluation.error_oracle import FALSE_NEGATIVES, FALSE_POSITIVES, KINDS
from r3cnn.evaluation.error_report import ErrorReport, LoopErrors
from r3cnn.names import shortened
from r3cnn.reporting.console import percent, plain_table, terminal
from r3cnn.reporting.panels import COLORS, INK, PANEL_SIZE, dress, figure_in, loop_bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console
    from rich.table import Table

GAINS = {**{kind: kind.capitalize() for kind in KINDS}, FALSE_POSITIVES: "FP", FALSE_NEGATIVES: "FN"}
Kinds = tuple[tuple[str, dict[str, LoopErrors]], ...]
LINES = ("-", "--", ":", "-.")
MAX_NUMBERED_CLASSES = 20


def print_errors(report: ErrorReport, console: Console | None = None) -> None:
    """Prints what each kind of error costs per loop, and what each loop repaired and broke.

    Args:
        report: Content of ``errors.json``.
        console: Where to; standard output by default.
    """
    console = console or terminal()
    for kind, loops in (("box", report["box"]), ("mask", report["mask"])):
        for iou in next(iter(loops.values()))["at_iou"]:
            console.print(gain_table(kind, iou, loops, report["images"]))
            if len(loops) > 1:
                console.print(change_table(kind, iou, loops))


def gain_table(kind: str, iou: str, loops: dict[str, LoopErrors], images: int) -> Table:
    """AP and what it would gain without one kind of error, one row per loop, in percent points."""
    title = f"{kind}, AP at IoU {iou} and gain without each kind of error (%), {images} images"
    table = plain_table(title, ("loop", "AP", *GAINS.values()))
    for number, loop in loops.items():
        found = loop["at_iou"][iou]
        table.add_row(number, percent(found["ap"]), *(percent(found["gains"][gain]) for gain in GAINS))
    return table


def change_table(kind: str, iou: str, loops: dict[str, LoopErrors]) -> Table:
    """Objects that each further loop found for the first time or lost, by what was wrong before or is wrong now."""
    title = f"{kind}, objects found at IoU {iou}: repaired (+) and broken (-) by each loop"
    table = plain_table(title, ("loop", "found", "of", "Loc", "Cls", "missed", "in all"))
    for number, loop in loops.items():
        found = loop["at_iou"][iou]
        objects, changes = found["objects"], found["changes"]
        cells = [str(objects["found"]), str(sum(objects.values()))]
        if changes is not None:
            repaired, broken = changes["repaired"], changes["broken"]
            cells += [f"+{repaired[state]} -{broken[state]}" for state in repaired]
            cells.append(f"{sum(repaired.values()) - sum(broken.values()):+d}")
        table.add_row(number, *cells)
    return table


def draw_errors(report: ErrorReport, folder: Path) -> None:
    """Saves ``errors.png``, ``precision_recall.png`` and one confusion matrix per kind, that of the last loop."""
    kinds = (("box", report["box"]), ("mask", report["mask"]))
    _draw_gains(kinds, folder / "errors.png")
    _draw_curves(kinds, folder / "precision_recall.png")
    for kind, loops in kinds:
        last = loops[str(len(loops))]
        _draw_confusion(np.array(last["confusion"]), report["classes"], kind, folder / f"confusion_{kind}.png")


def _draw_gains(kinds: Kinds, path: Path) -> None:
    ious = list(kinds[0][1]["1"]["at_iou"])
    with figure_in(path, PANEL_SIZE[0] * len(ious), PANEL_SIZE[1] * len(kinds)) as figure:
        rows = figure.subplots(len(kinds), len(ious), squeeze=False)
        for (kind, loops), row in zip(kinds, rows, strict=True):
            for iou, axes in zip(ious, row, strict=True):
                gains = {name: loop["at_iou"][iou]["gains"] for name, loop in loops.items()}
                heights = {name: [100 * (each[error] or 0.0) for error in KINDS] for name, each in gains.items()}
                loop_bars(axes, heights, [error.capitalize() for error in KINDS])
                dress(axes, f"{kind}: AP at IoU {iou} lost to each error (%)")


def _draw_curves(kinds: Kinds, path: Path) -> None:
    recall = np.linspace(0, 1, 101)
    with figure_in(path, PANEL_SIZE[0] * len(kinds), PANEL_SIZE[1]) as figure:
        for (kind, loops), axes in zip(kinds, figure.subplots(1, len(kinds), squeeze=False)[0], strict=True):
            for number, (name, loop) in enumerate(loops.items()):
                color = COLORS[number % len(COLORS)]
                for line, (iou, curve) in zip(LINES, loop["curves"].items(), strict=False):
                    if curve:
                        axes.plot(recall, curve, line, color=color, linewidth=1.4, label=f"loop {name}, IoU {iou}")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.02)
            if axes.lines:
                axes.legend(frameon=False, fontsize=7.5)
            dress(axes, f"{kind}: precision over recall, mean of the classes", "recall")


def _draw_confusion(matrix: NDArray[np.int64], classes: list[str], kind: str, path: Path) -> None:
    side = max(4.0, 1.8 + 0.28 * len(matrix))
    names = [*map(shortened, classes), "nothing"]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    with figure_in(path, side, side) as figure:
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        _name_cells(axes, matrix, shares)
        axes.set_xticks(range(len(matrix)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(matrix)), names, fontsize=8)
        axes.set_xlabel("detection", fontsize=9, color=INK)
        axes.set_ylabel("object", fontsize=9, color=INK)
        axes.set_title(f"{kind}: objects and detections, last loop", fontsize=10, color=INK, loc="left")


def _name_cells(axes: Axes, matrix: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    if len(matrix) > MAX_NUMBERED_CLASSES:
        return
    for (row, column), count in np.ndenumerate(matrix):
        color = "white" if shares[row, column] > 0.6 else INK
        axes.text(column, row, str(count), ha="center", va="center", fontsize=7.5, color=color)
