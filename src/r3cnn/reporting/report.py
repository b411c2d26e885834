"""Finished runs side by side: tables for the terminal and for ``report.md``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from r3cnn.reporting.console import COLUMNS, percent
from r3cnn.reporting.runs import Run

if TYPE_CHECKING:
    from rich.console import Console

TITLE = "Results"
NOTE = "Average precision in percent after the last loop scored; images seen of those in the annotation file."
NAME_WIDTH = 10  # so that a narrow terminal does not break a folder's name letter by letter
KINDS = ("box", "mask")


@dataclass(frozen=True)
class TextTable:
    """A table of strings.

    Attributes:
        title: What it shows.
        columns: Headings.
        rows: Cells, one per column.
        num_names: So many columns at the left are names; the others are numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_names: int


def summary_table(runs: Sequence[Run]) -> TextTable:
    """One row per run."""
    columns = ("run", "data set", "loops", "heads", "IoU", "box AP", "box AP50", "mask AP", "mask AP50", "images")
    rows = []
    for run in runs:
        precisions = [percent(run.metrics[kind][key]) for kind in ("box", "mask") for key in ("ap", "ap50")]
        images = run.metrics["images"]
        trained, scored = len(run.heads), len(run.metrics["loops"])
        loops = str(trained) if trained == scored else f"{trained}, scored {scored}"
        heads = " ".join(map(str, run.heads))
        thresholds = " ".join(f"{threshold:g}" for threshold in run.iou_thresholds)
        seen = f"{images['seen']} of {images['total']}"
        rows.append((run.name, run.data, loops, heads, thresholds, *precisions, seen))
    return TextTable(NOTE, columns, tuple(rows), 5)


def loop_table(run: Run) -> TextTable:
    """Box and mask AP of one run after every evaluation loop."""
    rows = [
        (loop, kind, *(percent(kinds[kind][key]) for key in COLUMNS))
        for loop, kinds in run.metrics["loops"].items()
        for kind in KINDS
    ]
    return TextTable(run.name, ("loop", "of", *COLUMNS.values()), tuple(rows), 2)


def to_markdown(runs: Sequence[Run]) -> str:
    """Content of ``report.md``."""
    summary = summary_table(runs)
    parts = [f"# {TITLE}", summary.title, _grid(summary)]
    for run in runs:
        table = loop_table(run)
        parts += [f"## {table.title}", _grid(table)]
    return "\n\n".join(parts) + "\n"


def _grid(table: TextTable) -> str:
    rule = ["---" if number < table.num_names else "---:" for number in range(len(table.columns))]
    lines = [table.columns, rule, *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def print_report(runs: Sequence[Run], console: Console | None = None) -> None:
    """Prints the same tables.

    Args:
        runs: What to show.
        console: Where to; standard output by default.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console()
    for text_table in (summary_table(runs), *map(loop_table, runs)):
        table = Table(title=Text(text_table.title), title_justify="left", box=SIMPLE_HEAD, show_edge=False)
        table.padding = (0, 1, 0, 0)
        for number, heading in enumerate(text_table.columns):
            is_name = number < text_table.num_names
            width = NAME_WIDTH if heading == "run" else None
            justify: Literal["left", "right"] = "left" if is_name else "right"
            stacked = heading.replace(" ", "\n")
            table.add_column(stacked, justify=justify, overflow="fold", min_width=width, no_wrap=not is_name)
        for row in text_table.rows:
            table.add_row(*map(Text, row))
        console.print(table)
        console.print()
