"""The published results (arXiv 2104.01329v2, Tables 1 to 4), and where they contradict themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from itertools import combinations

import msgspec

TABLES = ("table1", "table2", "table3", "table4")
FROZEN_PARAMETERS = 225_344  # stem and first stage of every ResNet-50, which the paper's count leaves out
BYTES, MIB, MB = 4, 2**20, 10**6


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
    """

    source: str
    dataset: str
    setup: str
    table1: tuple[PaperRow, ...]
    table2: tuple[PaperRow, ...]
    table3: tuple[PaperRow, ...]
    table4: tuple[PaperRow, ...]

    def rows(self, table: str) -> tuple[PaperRow, ...]:
        """Rows of ``table1`` … ``table4``."""
        tables = {"table1": self.table1, "table2": self.table2, "table3": self.table3, "table4": self.table4}
        return tables[table]


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
    places: tuple[Place, ...] = field(default=())


def read_paper() -> Paper:
    """The numbers that come with the package."""
    content = resources.files("r3cnn.reporting").joinpath("paper.json").read_bytes()
    return msgspec.json.decode(content, type=Paper)


def remarks(paper: Paper) -> list[Remark]:
    """Contradictions found by comparing the numbers, then what is known from the authors' released configurations."""
    return [
        *_one_system_two_results(paper),
        *_one_network_two_speeds(paper),
        *_one_loop_is_not_worse(paper),
        *_parameters_are_not_fewer(paper),
        *_sizes_are_binary(paper),
        *_released_settings(paper),
    ]


def _one_system_two_results(paper: Paper) -> Iterator[Remark]:
    """The same experiment with the same loops, printed with other AP in another table."""
    printed: dict[tuple[object, ...], list[tuple[str, PaperRow]]] = {}
    for table in TABLES:
        for row in paper.rows(table):
            loops = row.eval_loops if row.eval_loops is not None and row.eval_loops != row.train_loops else None
            printed.setdefault((frozenset(row.experiments), loops), []).append((table, row))
    for places in printed.values():
        results: dict[tuple[float, float], list[tuple[str, PaperRow]]] = {}
        for table, row in places:
            results.setdefault((row.box["ap"], row.mask["ap"]), []).append((table, row))
        if len(results) > 1:
            values = [
                f"{box:.1f}/{mask:.1f} in {_listed(table for table, _ in where)}"
                for (box, mask), where in results.items()
            ]
            cells = tuple(Place(table, f"{kind}/ap", row.row) for table, row in places for kind in ("box", "mask"))
            yield Remark(f"The paper prints two results for this system: {' but '.join(values)} (box/mask AP).", cells)


def _one_network_two_speeds(paper: Paper) -> Iterator[Remark]:
    """Rows of one network, told by parameters, loops and heads, with speeds that are not the same."""
    for first, second in combinations(paper.table1, 2):
        is_same = all(first.value(name) == second.value(name) for name in ("params_thousand", "train_loops", "heads"))
        if is_same and first.images_per_second != second.images_per_second:
            speeds = f"{first.images_per_second:g} and {second.images_per_second:g}"
            yield Remark(
                f"Rows {first.row} and {second.row} are one network, trained for other times, yet are printed with "
                f"{speeds} images per second.",
                tuple(Place("table1", "images_per_second", row.row) for row in (first, second)),
            )


def _one_loop_is_not_worse(paper: Paper) -> Iterator[Remark]:
    """Section 4.4: trained with three loops and evaluated with one, "even worse than Mask R-CNN"."""
    baseline, one_loop = paper.table2[0], paper.table2[1]
    for kind, ours, theirs in (("box", one_loop.box, baseline.box), ("mask", one_loop.mask, baseline.mask)):
        if ours["ap"] <= theirs["ap"]:
            continue
        yield Remark(
            f"The text (section 4.4) calls one evaluation loop even worse than Mask R-CNN; its {kind} AP is higher.",
            (Place("table2", f"{kind}/ap", one_loop.row),),
        )


def _parameters_are_not_fewer(paper: Paper) -> Iterator[Remark]:
    """Section 4.6: better and with fewer parameters, whatever it is put into."""
    baseline, advanced = paper.table1[0], paper.table1[-1]
    more = (advanced.params_thousand or 0) - (baseline.params_thousand or 0)
    if more > 0:
        yield Remark(
            "The text (section 4.6) speaks of fewer parameters: fewer than HTC has, but "
            f"{more:,} K more than Mask R-CNN.",
            (Place("table1", "params_thousand", advanced.row),),
        )


def _sizes_are_binary(paper: Paper) -> Iterator[Remark]:
    """Weights and SGD's momentum, computed from the parameters, come to the printed size in MiB and not in MB."""
    rows = [row for row in paper.table1 if row.params_thousand is not None and row.model_size_mb is not None]
    computed = {row.row: (2000 * (row.params_thousand or 0) + FROZEN_PARAMETERS) * BYTES for row in rows}
    is_mib = all(abs(computed[row.row] / MIB - (row.model_size_mb or 0)) < 2 for row in rows)
    is_mb = any(abs(computed[row.row] / MB - (row.model_size_mb or 0)) < 2 for row in rows)
    if is_mib and not is_mb:
        yield Remark(
            "Printed as MB; it is MiB of a training checkpoint (weights and SGD's momentum), not of the weights alone.",
            (Place("table1", "model_size_mb"),),
        )


def _released_settings(paper: Paper) -> Iterator[Remark]:
    """What the released configurations say and the paper does not."""
    yield Remark(
        "Trainable parameters: the 225,344 of the frozen stem and first stage are not counted; truncated, not rounded.",
        (Place("table1", "params_thousand"),),
    )
    baselines = [
        Place(table, "model", row.row)
        for table in TABLES
        for row in paper.rows(table)
        if row.experiments[0].startswith("mask_rcnn")
    ]
    yield Remark(
        "Released with other settings than R3-CNN and HTC in more than the loops: L1 instead of smooth-L1 loss, boxes "
        "per class, half the training proposals, score threshold 0.05 instead of 0.001 "
        "(experiment=mask_rcnn_matched has those of R3-CNN).",
        tuple(baselines),
    )
    normed = [row for row in paper.table4 if row.experiments[0].endswith("_gcnet") and row.row != 6]
    yield Remark(
        "Not like for like with row 6: released with batch statistics shared by all GPUs, row 6 with fixed ones.",
        tuple(Place("table4", "model", row.row) for row in normed),
    )


def _listed(tables: Iterator[str]) -> str:
    names = [f"Table {table.removeprefix('table')}" for table in dict.fromkeys(tables)]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
