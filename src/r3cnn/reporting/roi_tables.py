"""RoI statistics as tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from r3cnn.evaluation.metrics_format import RoiReport
from r3cnn.names import visible
from r3cnn.reporting.console import percent, plain_table, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLUMNS = ("loop", "IoU ≥", "RoIs", "positive", "S", "M", "L", "balance", "sum", "gain", "worse")
CAPTION = (
    "per image: RoIs, positives (also by object size); balance of the loop and of all so far; IoU gain of positives"
)


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
        balances = [_digits(loop["balance"]), _digits(loop["balance_so_far"]), _digits(gain["mean_gain"])]
        table.add_row(number, threshold, *per_image, *balances, worse)
    return table


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
