"""A finished run as the page knows it, and the table of all runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r3cnn.reporting.console import COLUMNS
from r3cnn.reporting.records import Record
from r3cnn.reporting.runs import Run
from r3cnn.reporting.tables import MISSING, Cell, Column, Table

KINDS = ("box", "mask")
RUN_COLUMNS = (
    Column("run", "name"),
    Column("no.", "name"),
    *(Column(heading, "measured", f"{kind} AP (%)") for kind in KINDS for heading in COLUMNS.values()),
    Column("experiment", "name"),
    Column("scale", "name"),
    Column("data set", "name"),
    Column("images", "name"),
    Column("seed", "name"),
    Column("trained", "name", "loops"),
    Column("scored", "name", "loops"),
    Column("heads", "name"),
    Column("IoU thresholds", "name"),
    Column("trainable parameters (M)", "measured"),
    Column("training", "measured", "images/s"),
    Column("evaluation", "measured", "images/s"),
    Column("training memory (GiB)", "measured"),
    Column("checkpoint (MiB)", "measured"),
    Column("device", "name"),
    Column("commit", "name"),
)


@dataclass(frozen=True)
class PageRun:
    """One finished run.

    Attributes:
        number: In the table of runs, from 1.
        name: Short, unique among those of the page.
        run: What it is and what came out.
    """

    number: int
    name: str
    run: Run

    @property
    def folder(self) -> Path:
        """Where it left its files."""
        return Path(self.run.name)

    @property
    def group(self) -> tuple[str, ...]:
        """Runs of one group were scored on the same images at the same scale, and share their diagrams."""
        record = self.run.record
        return (self.run.data,) if record is None else (self.group_title, record.data.val.digest)

    @property
    def group_title(self) -> str:
        """The group in words."""
        record = self.run.record
        if record is None:
            return self.run.data
        val = record.data.val
        return f"scale {record.scale}, scored on {val.images} images of {Path(val.file).name}"


def page_runs(runs: Sequence[Run]) -> list[PageRun]:
    """Numbers the runs, and names them by the part of their folders that tells them apart."""
    folders = [Path(run.name).absolute() for run in runs]
    if len(set(folders)) < 2:
        names = [folder.name for folder in folders]
    else:
        shared = os.path.commonpath(folders)
        names = [Path(os.path.relpath(folder, shared)).as_posix() for folder in folders]
    return [PageRun(number, name, run) for number, (name, run) in enumerate(zip(names, runs, strict=True), start=1)]


def runs_table(runs: Sequence[PageRun]) -> Table:
    """One row per run with all that was measured."""
    title = "AP after the last loop scored, and what it took"
    hint = "A click on a heading sorts."
    return Table("all-runs", title, hint, RUN_COLUMNS, tuple(map(_row, runs)))


def _row(page_run: PageRun) -> tuple[Cell, ...]:
    run, facts = page_run.run, page_run.run.record
    scores = (run.metrics["box"], run.metrics["mask"])
    images = run.metrics["images"]
    return (
        Cell(page_run.name),
        Cell(str(page_run.number), page_run.number),
        *(_number(score.get(key), factor=100) for score in scores for key in COLUMNS),
        Cell(facts.name if facts else MISSING),
        Cell(facts.scale if facts else MISSING),
        Cell(run.data),
        Cell(f"{images['seen']} of {images['total']}", images["seen"]),
        _number(facts.seed if facts else None, 0),
        _number(len(run.heads), 0),
        _number(len(run.metrics["loops"]), 0),
        Cell(" ".join(map(str, run.heads))),
        Cell(" ".join(f"{threshold:g}" for threshold in run.iou_thresholds)),
        *_costs(facts),
        Cell(facts.device if facts else MISSING),
        Cell(_commit(facts)),
    )


def _costs(facts: Record | None) -> tuple[Cell, ...]:
    """Parameters, speed, memory and size."""
    if facts is None:
        return tuple(Cell(MISSING) for _ in range(5))
    memory = _number(facts.train_memory_bytes, 2, 2.0**-30)
    return (
        _number(facts.parameters.trainable, 2, 1e-6),
        _number(facts.images_per_second.train, 2),
        _number(facts.images_per_second.eval, 2),
        memory if memory.value is None else Cell(f"{memory.text} {facts.memory_kind}", memory.value),
        _number(facts.checkpoint_mib, 1),
    )


def _commit(facts: Record | None) -> str:
    if facts is None or facts.git is None:
        return MISSING
    return facts.git.commit[:10] + ("+" if facts.git.is_dirty else "")


def _number(value: float | None, digits: int = 1, factor: float = 1.0) -> Cell:
    return Cell(MISSING) if value is None else Cell(f"{factor * value:,.{digits}f}", factor * value)
