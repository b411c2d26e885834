"""What stands in the columns of the paper's tables, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from r3cnn.reporting.paper import PaperRow
from r3cnn.reporting.rows import Scored

GIB = 2**30
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


def _thousands(value: float) -> str:
    return f"{int(value):,} K"


def _parameters(run: Scored) -> float:
    return run.record.parameters.trainable // 1000  # truncated, as in the paper


def _speed(run: Scored) -> float | None:
    return run.record.images_per_second.eval if run.is_last_loop else None


def _memory(run: Scored) -> float | None:
    memory = run.record.train_memory_bytes
    return None if memory is None else memory / GIB


def _size(run: Scored) -> float:
    return run.record.checkpoint_mib


def _precision(kind: str, measure: str, heading: str) -> Quantity:
    return Quantity(f"{kind}/{measure}", heading, lambda run: run.ap(kind, measure), _decimal)


PRECISIONS = (_precision("box", "ap", "BAP"), _precision("mask", "ap", "SAP"))
COSTS = (
    Quantity("images_per_second", "Speed (images/s)", _speed, _decimal, is_comparable=False),
    Quantity("train_memory_gb", "Mem. usage (GiB)", _memory, _decimal, is_comparable=False),
    Quantity("model_size_mb", "Model size (MiB)", _size, lambda value: f"{value:.0f}"),
)
MEASURES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}
NUMBER, MODEL = Name("#", lambda row: str(row.row)), Name("Model", lambda row: row.model)
METHOD = Name("Method", lambda row: row.model)
ORDER = Name("TS", lambda row: ORDERS[row.iou_order])
TRAIN_LOOPS, HEADS = Name("Lt", lambda row: str(row.train_loops)), Name("H", lambda row: str(row.heads))
EVAL_LOOPS = Name("Le", lambda row: str(row.eval_loops))
PARAMETERS = Quantity("params_thousand", "# Params", _parameters, _thousands)
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
