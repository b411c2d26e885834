"""Tables 1 to 4 in the paper's layout: ours beside the published values, never in one column."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r3cnn.reporting.paper import Paper, PaperRow, Place, Remark
from r3cnn.reporting.records import Record
from r3cnn.reporting.rows import Scored, left_out, runs_of
from r3cnn.reporting.setting import PAPER_IMAGES_PER_STEP, Setting
from r3cnn.reporting.tables import MISSING, NOT_RUN, Cell, Column, Table

SEEDS, OURS, PAPER, DIFFERENCE = "seeds", "ours", "paper", "difference"
INCOMPARABLE = (
    "Not the paper's setting ({reasons}), so the columns cannot be compared and there is no difference: "
    "{paper} was measured on {dataset} ({setup})."
)
# The paper gives one number for each row, and no second training of its own to tell chance by.
NO_SPREAD = (
    "The published numbers have no spread, so that no difference from them can be called significant; ours is a mean "
    "over the seeds, and with one seed it is one number as well."
)
OTHER_STEPS = (
    "Ours took {ours} images per step with the learning rate scaled to them, the paper {paper}: differences include "
    "what that changes."
)
OTHERS_LEFT_OUT = "Runs of another configuration than the newest are left out: {folders}."
ORDERS = {"increasing": "Inc", "decreasing": "Dec", None: "-"}


@dataclass(frozen=True)
class Quantity:
    """Something that was measured and published.

    Attributes:
        key: Its name in the paper's rows.
        heading: As in the paper.
        measure: Of one run; None where it cannot be told.
        show: A number as text.
        is_comparable: Whether ours and theirs may be subtracted at the paper's scale: not where the device decides.
    """

    key: str
    heading: str
    measure: Callable[[Scored], float | None]
    show: Callable[[float], str]
    is_comparable: bool = True


@dataclass(frozen=True)
class Name:
    """A column that says what a row is.

    Attributes:
        heading: As in the paper.
        text: Of one row.
    """

    heading: str
    text: Callable[[PaperRow], str]


@dataclass(frozen=True)
class Layout:
    """Columns of one table.

    Attributes:
        name: Unique in the report.
        source: Table of the paper.
        title: What it shows.
        columns: In the paper's order; the number of seeds comes after the first two.
    """

    name: str
    source: str
    title: str
    columns: tuple[Name | Quantity, ...]


def _decimal(value: float) -> str:
    return f"{value:.1f}"


def _memory(run: Scored) -> float | None:
    memory = run.record.train_memory_bytes
    return None if memory is None else memory / 2**30


def _precision(kind: str, measure: str, heading: str) -> Quantity:
    return Quantity(f"{kind}/{measure}", heading, lambda run: run.ap(kind, measure), _decimal)


PRECISIONS = (_precision("box", "ap", "BAP"), _precision("mask", "ap", "SAP"))
COSTS = (
    Quantity(
        "images_per_second",
        "Speed (images/s)",
        lambda run: run.record.images_per_second.eval if run.is_last_loop else None,
        _decimal,
        is_comparable=False,
    ),
    Quantity("train_memory_gb", "Mem. usage (GiB)", _memory, _decimal, is_comparable=False),
    Quantity("model_size_mb", "Model size (MiB)", lambda run: run.record.checkpoint_mib, lambda value: f"{value:.0f}"),
)
MEASURES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}
NUMBER, MODEL = Name("#", lambda row: str(row.row)), Name("Model", lambda row: row.model)
METHOD = Name("Method", lambda row: row.model)
ORDER = Name("TS", lambda row: ORDERS[row.iou_order])
TRAIN_LOOPS, HEADS = Name("Lt", lambda row: str(row.train_loops)), Name("H", lambda row: str(row.heads))
EVAL_LOOPS = Name("Le", lambda row: str(row.eval_loops))
PARAMETERS = Quantity(
    "params_thousand",
    "# Params",
    lambda run: run.record.parameters.trainable // 1000,  # truncated, as in the paper
    lambda value: f"{int(value):,} K",
)
LAYOUTS = (
    Layout(
        "table1",
        "table1",
        "Table 1: parameters, average precision, speed and memory",
        (NUMBER, MODEL, PARAMETERS, ORDER, TRAIN_LOOPS, HEADS, *PRECISIONS, *COSTS),
    ),
    Layout(
        "table2",
        "table2",
        "Table 2: evaluation loops of a network trained with three",
        (NUMBER, MODEL, TRAIN_LOOPS, HEADS, EVAL_LOOPS, *PRECISIONS),
    ),
    Layout("table3", "table3", "Table 3: training loops", (NUMBER, MODEL, TRAIN_LOOPS, HEADS, *PRECISIONS)),
    *(
        Layout(
            f"table4-{kind}",
            "table4",
            f"Table 4, {title}",
            (NUMBER, METHOD, *(_precision(kind, measure, heading) for measure, heading in MEASURES.items())),
        )
        for kind, title in (("box", "bounding box (object detection)"), ("mask", "mask (instance segmentation)"))
    ),
)


def paper_tables(paper: Paper, source: str, setting: Setting | None, records: Mapping[Path, Record]) -> list[Table]:
    """One table of the paper; the fourth one comes as two, boxes and masks.

    Args:
        paper: The published numbers.
        source: ``table1`` … ``table4``.
        setting: What the runs have in common; None without any run.
        records: Finished runs of that setting.
    """
    return [_table(layout, paper, setting, records) for layout in LAYOUTS if layout.source == source]


def measured_rows(paper: Paper, source: str, records: Mapping[Path, Record]) -> dict[int, tuple[Scored, ...]]:
    """The runs that measure each row of a table, by its number; without the rows that nothing measures."""
    found = {row.row: runs_of(row, records) for row in paper.rows(source)}
    return {number: runs for number, runs in found.items() if runs}


class _Notes:
    """Collects the remarks of a table in the order in which they are first referred to."""

    def __init__(self, table: str, known: Sequence[Remark]) -> None:
        self.texts: list[str] = []
        self._table, self._known = table, known

    def add(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text)

    def at(self, quantity: str, row: int | None = None) -> tuple[int, ...]:
        place = Place(self._table, quantity, row)
        return tuple(self.add(remark.text) for remark in self._known if place in remark.places)


def _table(layout: Layout, paper: Paper, setting: Setting | None, records: Mapping[Path, Record]) -> Table:
    notes = _Notes(layout.source, paper.remarks)
    has_difference = setting is not None and setting.is_the_papers
    columns = _columns(layout, notes, records, has_difference=has_difference)
    rows = tuple(_row(row, layout, notes, records, has_difference=has_difference) for row in paper.rows(layout.source))
    subtitle = "ours: not run" if setting is None else f"ours: {setting.describe()}. {_cautions(paper, setting)}"
    name = layout.name if setting is None else f"{layout.name}-{setting.scale}-{setting.digest}"
    return Table(name, layout.title, subtitle, columns, rows, tuple(notes.texts))


def _cautions(paper: Paper, setting: Setting) -> str:
    """How far ours and the published numbers may be compared."""
    if not setting.is_the_papers:
        reasons, setup = ", ".join(setting.unlike_the_papers), paper.setup.rstrip(".")
        return INCOMPARABLE.format(reasons=reasons, paper=paper.source, dataset=paper.dataset, setup=setup)
    if setting.images_per_step == PAPER_IMAGES_PER_STEP:
        return NO_SPREAD
    return f"{NO_SPREAD} {OTHER_STEPS.format(ours=setting.images_per_step, paper=PAPER_IMAGES_PER_STEP)}"


def _columns(
    layout: Layout, notes: _Notes, records: Mapping[Path, Record], *, has_difference: bool
) -> tuple[Column, ...]:
    found: list[Column] = []
    for part in layout.columns:
        if isinstance(part, Name):
            found.append(Column(part.heading, "name"))
            if part in (MODEL, METHOD):
                found.append(Column(SEEDS, "measured"))
            continue
        where = notes.at(part.key) + _device_notes(part, notes, records)
        found.append(Column(OURS, "measured", part.heading, where))
        found.append(Column(PAPER, "published", part.heading, where))
        if has_difference and part.is_comparable:
            found.append(Column(DIFFERENCE, "difference", part.heading, where))
    return tuple(found)


def _device_notes(quantity: Quantity, notes: _Notes, records: Mapping[Path, Record]) -> tuple[int, ...]:
    """What speed and memory were measured on."""
    if quantity.is_comparable or not records:
        return ()
    places = {(record.device, record.ranks) for record in records.values()}
    devices = sorted(f"{device} (ranks: {ranks})" for device, ranks in places)
    text = f"Depends on the device, so there is no difference: ours {' and '.join(devices)}, the paper's V100."
    found = [notes.add(text)]
    if quantity.key == "train_memory_gb" and any(record.memory_kind == "resident" for record in records.values()):
        found.append(
            notes.add("On the CPU what the whole process held, on a GPU what was allocated there in training.")
        )
    return tuple(found)


def _row(
    row: PaperRow, layout: Layout, notes: _Notes, records: Mapping[Path, Record], *, has_difference: bool
) -> tuple[Cell, ...]:
    cells, runs = list[Cell](), runs_of(row, records)
    for part in layout.columns:
        if isinstance(part, Quantity):
            cells += _numbers(row, part, notes, runs, has_difference=has_difference)
        elif part in (MODEL, METHOD):
            cells.append(Cell(part.text(row), notes=notes.at("model", row.row)))
            cells.append(_seeds(runs, notes, left_out(row, records)))
        else:
            cells.append(Cell(part.text(row)))
    return tuple(cells)


def _seeds(runs: Sequence[Scored], notes: _Notes, others: Sequence[Path]) -> Cell:
    if not runs:
        return Cell(NOT_RUN)
    names = ", ".join(folder.name for folder in others)
    return Cell(str(len(runs)), len(runs), (notes.add(OTHERS_LEFT_OUT.format(folders=names)),) if others else ())


def _numbers(
    row: PaperRow, quantity: Quantity, notes: _Notes, runs: Sequence[Scored], *, has_difference: bool
) -> list[Cell]:
    """Ours, the paper's, and their difference where there may be one."""
    values = [value for run in runs if (value := quantity.measure(run)) is not None]
    published = row.value(quantity.key)
    text = MISSING if published is None else quantity.show(published)
    cells = [spread(values, quantity.show), Cell(text, published, notes.at(quantity.key, row.row))]
    if has_difference and quantity.is_comparable:
        cells.append(_difference(values, published, quantity.show))
    return cells


def spread(values: Sequence[float], show: Callable[[float], str]) -> Cell:
    """Mean over the seeds, with their standard deviation (n - 1) where there are several."""
    if not values:
        return Cell(MISSING)
    mean = statistics.fmean(values)
    if len(values) == 1 or len(set(values)) == 1:
        return Cell(show(mean), mean)
    return Cell(f"{show(mean)} ± {show(statistics.stdev(values))}", mean)


def _difference(values: Sequence[float], published: float | None, show: Callable[[float], str]) -> Cell:
    if not values or published is None:
        return Cell(MISSING)
    difference = statistics.fmean(values) - published
    shown = show(abs(difference))
    sign = "+" if difference > 0 else "-"
    return Cell(f"{sign}{shown}" if shown != show(0) else shown, difference)
