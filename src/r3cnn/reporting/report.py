"""Finished runs side by side, and how the report looks on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len

from r3cnn.names import visible
from r3cnn.reporting.console import COLUMNS, decimal, percent, terminal
from r3cnn.reporting.records import Record
from r3cnn.reporting.runs import Run
from r3cnn.reporting.tables import Table, mark, marks

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

TITLE = "Results"
NOTE = "Average precision in percent after the last loop scored; images seen of those in the annotation file."
COST_NOTE = "What the runs took; a + marks a checkout with changes that are in no commit."
COST_COLUMNS = (
    "run",
    "experiment",
    "scale",
    "seed",
    "trainable parameters",
    "train images/s",
    "eval images/s",
    "memory GiB",
    "checkpoint MiB",
    "device",
    "commit",
)
GAP = 2
ROW_NAMES = ("#", "Model", "Method")
MOST_SHOWN = 20  # runs whose loops are printed; more take longer to print than to read elsewhere
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


def cost_table(runs: Sequence[Run]) -> TextTable:
    """What the runs of the ledger took; no row for a run without a record."""
    rows = [(run.name, *_costs(run.record)) for run in runs if run.record is not None]
    return TextTable(COST_NOTE, COST_COLUMNS, tuple(rows), 3)


def _costs(record: Record) -> tuple[str, ...]:
    memory = None if record.train_memory_bytes is None else record.train_memory_bytes / 2**30
    commit = "–" if record.git is None else record.git.commit[:10] + ("+" if record.git.is_dirty else "")
    ranks = f" x {record.ranks}" if record.ranks > 1 else ""
    return (
        record.name,
        record.scale,
        str(record.seed),
        f"{record.parameters.trainable:,}",
        decimal(record.images_per_second.train),
        decimal(record.images_per_second.eval),
        decimal(memory),
        decimal(record.checkpoint_mib),
        record.device + ranks,
        commit,
    )


def print_report(runs: Sequence[Run], tables: Sequence[Table] = (), console: Console | None = None) -> None:
    """Prints the same tables.

    Args:
        runs: What to show.
        tables: Those of the paper.
        console: Where to; standard output by default.
    """
    console = console or terminal()
    for table in tables:
        print_table(table, console)
    costs = cost_table(runs)
    shown = [summary_table(runs)] if runs else []
    for text_table in (*shown, *([costs] if costs.rows else []), *map(loop_table, runs[:MOST_SHOWN])):
        console.print(_grid(text_table))
        console.print()
    if len(runs) > MOST_SHOWN:
        console.print(f"The loops of {len(runs) - MOST_SHOWN} more runs stand in the files.")


def _grid(text_table: TextTable) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    table = RichTable(title=text_table.title, title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1, 0, 0)
    for number, heading in enumerate(text_table.columns):
        is_name = number < text_table.num_names
        width = NAME_WIDTH if heading == "run" else None
        justify: Literal["left", "right"] = "left" if is_name else "right"
        stacked = heading.replace(" ", "\n")
        table.add_column(stacked, justify=justify, overflow="fold", min_width=width, no_wrap=not is_name)
    for row in text_table.rows:
        table.add_row(*map(visible, row))
    return table


def print_table(table: Table, console: Console) -> None:
    """Prints a table of the paper, in several parts where the terminal is too narrow for all quantities at once."""
    console.print(table.title, style="bold")
    console.print(table.subtitle)
    for chosen in parts_of(table, console.width):
        console.print(_part(table, chosen))
    for number, text in enumerate(table.notes):
        console.print(f"({mark(number)}) {text}", style="dim")
    console.print()


def parts_of(table: Table, width: int) -> list[list[int]]:
    """Positions of the columns of each part: those that name a row, and as many quantities as fit."""
    widths = [max(map(cell_len, column)) + GAP + 1 for column in zip(*_texts(table), strict=True)]
    kept = [number for number, column in enumerate(table.columns) if column.heading in ROW_NAMES]
    others = [number for number in range(len(table.columns)) if number not in kept]
    quantities = [
        [*members] for _, members in groupby(others, key=lambda number: table.columns[number].group or number)
    ]
    parts = [kept]
    for members in quantities:
        if sum(widths[number] for number in (*parts[-1], *members)) > width and parts[-1] != kept:
            parts.append(kept)
        parts[-1] = [*parts[-1], *members]
    return parts


def _texts(table: Table) -> Iterator[tuple[str, ...]]:
    """All that stands in the table, line by line; a heading has two."""
    yield tuple(column.group for column in table.columns)
    yield tuple(column.heading + _marks(column.notes) for column in table.columns)
    for row in table.rows:
        yield tuple(cell.text + _marks(cell.notes) for cell in row)


def _part(table: Table, chosen: Sequence[int]) -> RichTable:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable

    grid = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP, 0, 0), collapse_padding=True)
    groups, headings, *rows = _texts(table)
    for number in chosen:
        heading = "\n".join(filter(None, (groups[number], headings[number])))
        justify: Literal["left", "right"] = "right" if table.columns[number].is_number else "left"
        grid.add_column(heading, justify=justify, overflow="fold")
    for row in rows:
        grid.add_row(*(visible(row[number]) for number in chosen))
    return grid


def _marks(notes: tuple[int, ...]) -> str:
    return f" ({marks(notes)})" if notes else ""
