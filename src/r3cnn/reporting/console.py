"""The terminal, and average precision as tables on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from r3cnn.names import shortened, visible_lines

if TYPE_CHECKING:
    from r3cnn.evaluation.metrics import Metrics
    from r3cnn.evaluation.protocol import Stats

COLUMNS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "S", "ap_medium": "M", "ap_large": "L"}
CLASSES_PER_COLUMN = 20
MAX_SIDE_BY_SIDE = 2
LONGEST_NAME = 80


class TextConsole(Console):
    """A terminal on which every string is text: no markup, no codes of emoji, and control characters can be seen."""

    def render_str(self, text: str, **options: Any) -> Text:
        """What a string looks like; rich sends all of them through here."""
        return super().render_str(visible_lines(text), **options)


def terminal(file: IO[str] | None = None, width: int | None = None) -> TextConsole:
    """Standard output, or a file of some width."""
    return TextConsole(file=file, width=width, markup=False, emoji=False, highlight=False)


def plain_table(title: str, headings: Sequence[str], *, names: int = 0, caption: str | None = None) -> Table:
    """An empty table; its first so many columns hold names, the others numbers."""
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    table.show_edge, table.padding, table.min_width = False, (0, 1, 0, 0), len(title)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < names else "right", no_wrap=number >= names)
    return table


def decimal(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals; a dash where it is undefined."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A fraction in percent as papers print it; a dash where it is undefined."""
    return decimal(None if value is None else 100 * value)


def loop_table(metrics: Metrics) -> Table:
    """Box and mask AP after every loop, in percent; the last loop is the result."""
    seen, total = metrics["images"]["seen"], metrics["images"]["total"]
    images = f"{total} images" if seen == total else f"{seen} of {total} images"
    return _ap_table(f"Average precision after each loop (%), {images}", metrics["loops"])


def _ap_table(title: str, loops: Mapping[str, Mapping[str, Stats]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("loop", justify="right")
    table.add_column("of")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for number, loop in enumerate(loops.items(), start=1):
        name, kinds = loop
        is_last = number == len(loops)
        for kind in ("box", "mask"):
            cells = [percent(kinds[kind][key]) for key in COLUMNS]
            table.add_row(
                name if kind == "box" else "",
                kind,
                *cells,
                style="bold" if is_last else None,
                end_section=kind == "mask",
            )
    return table


def class_table(metrics: Metrics) -> Table | None:
    """Box and mask AP of each class that has ground truth, best mask first, down the columns; None without any."""
    rows = [
        (name, kinds["box"], kinds["mask"])
        for name, kinds in metrics["per_class"].items()
        if kinds["box"] is not None or kinds["mask"] is not None
    ]
    if not rows:
        return None
    absent = len(metrics["per_class"]) - len(rows)
    note = f"without ground truth: {absent}" if absent else None
    title = "Average precision per class (%)"
    table = Table(title=title, caption=note, title_justify="left", caption_justify="left", min_width=len(title))
    side_by_side = min(MAX_SIDE_BY_SIDE, math.ceil(len(rows) / CLASSES_PER_COLUMN))
    for _ in range(side_by_side):
        table.add_column("class")
        table.add_column("box", justify="right")
        table.add_column("mask", justify="right")
    rows.sort(key=lambda row: (-(row[2] or 0.0), row[0]))
    length = math.ceil(len(rows) / side_by_side)
    for line in range(length):
        cells = [(shortened(name, LONGEST_NAME), percent(box), percent(mask)) for name, box, mask in rows[line::length]]
        table.add_row(*[cell for group in cells for cell in group])
    return table


def fusion_tables(metrics: Metrics) -> list[Table]:
    """Box and mask AP after every loop under each further rule of score fusion."""
    tables = []
    for rule, loops in metrics.get("score_fusions", {}).items():
        tables.append(_ap_table(f"Average precision with score_fusion={rule} (%)", loops))
    return tables


def recall_table(metrics: Metrics) -> Table | None:
    """Average recall of the proposals and after every loop, whatever the class; None where it was not asked for."""
    stages = metrics.get("proposal_recall", {})
    if not stages:
        return None
    title = "Average recall, any class (%)"
    table = Table(title=title, title_justify="left", min_width=len(title))
    table.add_column("boxes after", justify="right")
    for name in next(iter(stages.values())):
        table.add_column(f"AR@{name.removeprefix('ar')}", justify="right")
    for stage, values in stages.items():
        label = "RPN" if stage == "rpn" else f"loop {stage}"
        table.add_row(label, *[percent(value) for value in values.values()])
    return table


def print_metrics(metrics: Metrics, console: Console | None = None) -> None:
    """Prints the table per loop and the table per class.

    Args:
        metrics: Content of ``metrics.json``.
        console: Where to; standard output by default.
    """
    console = console or terminal()
    console.print(loop_table(metrics))
    for table in fusion_tables(metrics):
        console.print(table)
    recall = recall_table(metrics)
    if recall is not None:
        console.print(recall)
    classes = class_table(metrics)
    if classes is not None:
        console.print(classes)
