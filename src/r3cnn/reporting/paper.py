"""The published results (arXiv 2104.01329v2, Tables 1 to 4), and where they contradict themselves."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import msgspec

TABLES = ("table1", "table2", "table3", "table4")


@dataclass(frozen=True)
class PaperRow:
    """One row of a table as printed; None and empty where the table has no such column.

    Attributes:
        row: Its number.
        model: The system.
        experiments: Names of ours that it can be measured by, the most direct one first.
        box: AP in percent of boxes by ``ap``, ``ap50``, ``ap75``, ``ap_small``, ``ap_medium``, ``ap_large``.
        mask: Likewise of masks.
        params_thousand: Trainable parameters, in thousands, truncated.
        iou_order: Whether IoU thresholds rise or fall from loop to loop.
        train_loops: Loops in training.
        heads: Heads of each type.
        eval_loops: Loops in evaluation; None for as many as in training.
        images_per_second: In evaluation, on one V100.
        train_memory_gb: As printed.
        model_size_mb: As printed; in fact MiB of a training checkpoint.
    """

    row: int
    model: str
    experiments: tuple[str, ...]
    box: dict[str, float]
    mask: dict[str, float]
    params_thousand: int | None = None
    iou_order: str | None = None
    train_loops: int | None = None
    heads: int | None = None
    eval_loops: int | None = None
    images_per_second: float | None = None
    train_memory_gb: float | None = None
    model_size_mb: float | None = None

    def value(self, quantity: str) -> float | None:
        """A printed number by the name of its column, such as ``box/ap75`` or ``params_thousand``."""
        kind, _, measure = quantity.partition("/")
        if measure:
            return (self.box if kind == "box" else self.mask).get(measure)
        return getattr(self, quantity)


@dataclass(frozen=True)
class Place:
    """A cell of a table; without a row, the heading of its column."""

    table: str
    quantity: str
    row: int | None = None


@dataclass(frozen=True)
class Remark:
    """What a reader of the printed numbers should know.

    Attributes:
        text: One sentence or two.
        places: Cells and headings that it belongs to.
    """

    text: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Paper:
    """All tables.

    Attributes:
        source: The paper.
        dataset: What everything was scored on.
        setup: How everything was trained.
        table1: Systems.
        table2: Evaluation loops.
        table3: Training loops.
        table4: Plug-ins.
        remarks: Where the numbers contradict one another or the text, then what the authors' released configurations
            say and the paper does not.
    """

    source: str
    dataset: str
    setup: str
    table1: tuple[PaperRow, ...]
    table2: tuple[PaperRow, ...]
    table3: tuple[PaperRow, ...]
    table4: tuple[PaperRow, ...]
    remarks: tuple[Remark, ...]

    def rows(self, table: str) -> tuple[PaperRow, ...]:
        """Rows of ``table1`` … ``table4``."""
        return {"table1": self.table1, "table2": self.table2, "table3": self.table3, "table4": self.table4}[table]


def read_paper() -> Paper:
    """The numbers that come with the package."""
    content = resources.files("r3cnn.reporting").joinpath("paper.json").read_bytes()
    return msgspec.json.decode(content, type=Paper)
