"""Error analysis as tables on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from r3cnn.evaluation.error_oracle import FALSE_NEGATIVES, FALSE_POSITIVES, KINDS
from r3cnn.evaluation.error_report import ErrorReport, LoopErrors
from r3cnn.reporting.console import percent, plain_table, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

GAINS = {**{kind: kind.capitalize() for kind in KINDS}, FALSE_POSITIVES: "FP", FALSE_NEGATIVES: "FN"}


def print_errors(report: ErrorReport, console: Console | None = None) -> None:
    """Prints what each kind of error costs per loop, and what each loop repaired and broke.

    Args:
        report: Content of ``errors.json``.
        console: Where to; standard output by default.
    """
    console = console or terminal()
    for kind, loops in (("box", report["box"]), ("mask", report["mask"])):
        for iou in next(iter(loops.values()))["at_iou"]:
            console.print(gain_table(kind, iou, loops, report["images"]))
            if len(loops) > 1:
                console.print(change_table(kind, iou, loops))


def gain_table(kind: str, iou: str, loops: dict[str, LoopErrors], images: int) -> Table:
    """AP and what it would gain without one kind of error, one row per loop, in percent points."""
    title = f"{kind}, AP at IoU {iou} and gain without each kind of error (%), {images} images"
    table = plain_table(title, ("loop", "AP", *GAINS.values()))
    for number, loop in loops.items():
        found = loop["at_iou"][iou]
        table.add_row(number, percent(found["ap"]), *(percent(found["gains"][gain]) for gain in GAINS))
    return table


def change_table(kind: str, iou: str, loops: dict[str, LoopErrors]) -> Table:
    """Objects that each further loop found for the first time or lost, by what was wrong before or is wrong now."""
    title = f"{kind}, objects found at IoU {iou}: repaired (+) and broken (-) by each loop"
    table = plain_table(title, ("loop", "found", "of", "Loc", "Cls", "missed", "in all"))
    for number, loop in loops.items():
        found = loop["at_iou"][iou]
        objects, changes = found["objects"], found["changes"]
        cells = [str(objects["found"]), str(sum(objects.values()))]
        if changes is not None:
            repaired, broken = changes["repaired"], changes["broken"]
            cells += [f"+{repaired[state]} -{broken[state]}" for state in repaired]
            cells.append(f"{sum(repaired.values()) - sum(broken.values()):+d}")
        table.add_row(number, *cells)
    return table
