"""Differences between the systems of a table that the paper's text compares, with what chance can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from r3cnn.evaluation.bootstrap import ApDifference
from r3cnn.reporting.paper import Paper, PaperRow
from r3cnn.reporting.rows import Scored
from r3cnn.reporting.setting import Setting
from r3cnn.reporting.significance import Draws, compare, describe
from r3cnn.reporting.tables import MISSING, Cell, Column, Table

# By table: a row, and the row that it is compared with.
COMPARED = {
    "table1": ((4, 1), (4, 2), (4, 3), (5, 4), (6, 3)),
    "table2": ((2, 1), (2, 4), (3, 4), (5, 4), (6, 4)),
    "table3": ((2, 1), (3, 2), (4, 3), (5, 4)),
    "table4": ((2, 1), (3, 2), (5, 4), (7, 6), (8, 7), (10, 9), (11, 10)),
}
COLUMNS = (
    Column("#", "name"),
    Column("system", "name"),
    Column("compared with", "name"),
    Column("seeds", "measured"),
    Column("box AP", "measured"),
    Column("mask AP", "measured"),
)
ENOUGH_SEEDS = 5
# A few pairs can be drawn in few ways only, and one pair in one.
FEW_SEEDS = (
    "Fewer than {enough} seeds in common tell next to nothing about other trainings: the interval is mostly that of "
    "the images, and too narrow for a claim about the systems."
)


def difference_tables(
    paper: Paper, source: str, setting: Setting, rows: Mapping[int, Sequence[Scored]], draws: Draws
) -> list[Table]:
    """The comparisons of one table whose both sides were measured; none if there are none.

    Args:
        paper: The published numbers, of which only the systems' names are used.
        source: ``table1`` … ``table4``.
        setting: What the runs have in common.
        rows: The runs that measure each row, by its number.
        draws: How the intervals are drawn.
    """
    lines = tuple(_lines(paper, source, rows, draws))
    if not lines:
        return []
    notes = list(dict.fromkeys(note for _, note in lines if note))
    cells = tuple((*row[:-1], replace(row[-1], notes=(notes.index(note),))) if note else row for row, note in lines)
    name = f"differences-{source}-{setting.digest}"
    title = f"Differences between our own runs of Table {source.removeprefix('table')}"
    subtitle = (
        f"ours: {setting.describe()}. AP in percentage points, in brackets the {100 * draws.confidence:g} % interval "
        f"of {draws.resamples} bootstrap resamples of the images, and of the seeds where there are several. With 0 in "
        "the interval a difference is not significant; intervals are not widened for the number of comparisons."
    )
    return [Table(name, title, subtitle, COLUMNS, cells, tuple(notes))]


def compared_runs(source: str, rows: Mapping[int, Sequence[Scored]]) -> list[Scored]:
    """The runs of one table that are compared with others."""
    sides = [row for pair in COMPARED[source] if rows.keys() >= {*pair} for row in pair]
    return [*{(run.folder, run.loop): run for row in sides for run in rows[row]}.values()]


def _lines(
    paper: Paper, source: str, rows: Mapping[int, Sequence[Scored]], draws: Draws
) -> Iterator[tuple[tuple[Cell, ...], str | None]]:
    """One row per comparison, with what must be known of it: why it could not be made, or that its seeds are few."""
    known = {row.row: row for row in paper.rows(source)}
    for number, baseline in COMPARED[source]:
        if number not in rows or baseline not in rows:
            continue
        found = compare(rows[number], rows[baseline], draws)
        are_few = found.mask is not None and found.mask.pairs < ENOUGH_SEEDS
        note = FEW_SEEDS.format(enough=ENOUGH_SEEDS) if are_few else found.reason
        pairs = None if found.box is None else found.box.pairs
        names = (Cell(f"{number} - {baseline}"), Cell(_name(known[number])), Cell(_name(known[baseline])))
        seeds = Cell(MISSING) if pairs is None else Cell(str(pairs), pairs)
        yield (*names, seeds, _difference(found.box), _difference(found.mask)), note


def _difference(found: ApDifference | None) -> Cell:
    if found is None:
        return Cell("not known")
    several = "" if found.spread is None else f" (seeds ± {100 * found.spread:.1f})"
    return Cell(describe(found) + several, 100 * found.value)


def _name(row: PaperRow) -> str:
    details = {"Lt": row.train_loops, "Le": row.eval_loops, "TS": row.iou_order}
    told = ", ".join(f"{key} {value}" for key, value in details.items() if value is not None)
    return f"{row.model}, {told}" if told else row.model
