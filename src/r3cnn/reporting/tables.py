"""Tables whose cells say whether they were measured or published; what they look like is decided elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["name", "measured", "published", "difference"]
MISSING, NOT_RUN = "–", "not run"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: What is shown.
        value: What it sorts by; None goes last.
        notes: Positions in the table's notes.
    """

    text: str
    value: float | None = None
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: Its own name.
        kind: What its cells are; a column never mixes kinds.
        group: Quantity that it shares with its neighbours; empty for a column that stands alone.
        notes: Positions in the table's notes of what holds for the whole quantity.
    """

    heading: str
    kind: Kind
    group: str = ""
    notes: tuple[int, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether its cells stand at the right."""
        return self.kind != "name"


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: Unique in a report; letters, digits and hyphens.
        title: What it is.
        subtitle: Under which setting the measured columns came about.
        columns: From left to right.
        rows: Cells, one per column.
        notes: Remarks that cells and headings refer to, in the order of their first mark.
    """

    name: str
    title: str
    subtitle: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.name} has a row of {len(row)} cells and {len(self.columns)} columns")


def mark(note: int) -> str:
    """Sign of a note: a, b, …, z, aa, ab …"""
    letters = ""
    while note >= 0:
        letters = chr(ord("a") + note % 26) + letters
        note = note // 26 - 1
    return letters


def marks(notes: tuple[int, ...]) -> str:
    """Signs of several notes."""
    return ",".join(map(mark, notes))
