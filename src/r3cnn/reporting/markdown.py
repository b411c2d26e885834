"""The report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from r3cnn.names import visible
from r3cnn.reporting.report import TITLE, TextTable, cost_table, loop_table, summary_table
from r3cnn.reporting.runs import Run
from r3cnn.reporting.tables import Cell, Column, Table, mark, marks

ESCAPED = str.maketrans({letter: f"\\{letter}" for letter in "\\`*_[]<>|~$"})
ENTITY_OR_END = re.compile(r"&(?=#?\w+;)|#(?=#*\s*$)")  # of a heading, which may end with number signs


def to_markdown(runs: Sequence[Run], tables: Sequence[Table] = (), left_out: Sequence[str] = ()) -> str:
    """Content of ``report.md``: the paper's tables, all runs, those that cannot be read, and each loop by loop."""
    parts = [f"# {TITLE}", *map(table_section, tables)]
    if runs:
        summary = summary_table(runs)
        parts += ["## All runs", summary.title, _grid(summary)]
        costs = cost_table(runs)
        if costs.rows:
            parts += [costs.title, _grid(costs)]
    if left_out:
        parts += ["## Left out", "\n".join(f"- {escape(line)}" for line in left_out)]
    for run in runs:
        table = loop_table(run)
        parts += [f"### {escape(table.title)}", _grid(table)]
    return "\n\n".join(parts) + "\n"


def table_section(table: Table) -> str:
    """One table of the paper under its own heading, with its notes below."""
    headings = [_heading(column) for column in table.columns]
    rule = ["---:" if column.is_number else "---" for column in table.columns]
    lines = [headings, rule, *([_cell(cell) for cell in row] for row in table.rows)]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    notes = "  \n".join(f"<sup>{mark(number)}</sup> {escape(text)}" for number, text in enumerate(table.notes))
    return "\n\n".join(part for part in (f"## {escape(table.title)}", escape(table.subtitle), grid, notes) if part)


def _heading(column: Column) -> str:
    words = f"{column.group}: {column.heading}" if column.group else column.heading
    return escape(words) + _marks(column.notes)


def _cell(cell: Cell) -> str:
    return escape(cell.text) + _marks(cell.notes)


def _marks(notes: tuple[int, ...]) -> str:
    return f" <sup>{marks(notes)}</sup>" if notes else ""


def escape(text: str) -> str:
    """Plain text that Markdown shows as it is, on one line."""
    return ENTITY_OR_END.sub(r"\\\g<0>", visible(text).translate(ESCAPED))


def _grid(table: TextTable) -> str:
    rule = ["---" if number < table.num_names else "---:" for number in range(len(table.columns))]
    lines = [[escape(cell) for cell in line] for line in (table.columns, *table.rows)]
    lines.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
