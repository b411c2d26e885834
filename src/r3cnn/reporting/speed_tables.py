"""AP and time of the optional modes of inference as a table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from r3cnn.evaluation.protocol import Stats
from r3cnn.reporting.console import percent, terminal
from r3cnn.run_files import read_json

if TYPE_CHECKING:
    from rich.console import Console


class SpeedPoint(TypedDict):
    """AP and time of one setting, as in ``speed.json``."""

    curve: str
    label: str
    seconds_per_image: float
    ratio: float
    ratio_low: float
    ratio_high: float
    box: Stats
    mask: Stats


class SpeedReport(TypedDict):
    """Content of ``speed.json``."""

    checkpoint: str
    images: int
    repetitions: int
    clock: str
    machine: dict[str, str | int]
    points: list[SpeedPoint]


def read_speed(path: Path) -> SpeedReport:
    """Reads ``speed.json``."""
    return read_json(path, SpeedReport)


def print_speed(path: Path, console: Console | None = None) -> None:
    """Prints one row per setting: AP, time per image, and time beside the network as it was trained.

    Args:
        path: ``speed.json``.
        console: Where to; standard output by default.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    report = read_speed(path)
    title = f"{report['images']} images, AP in %, {report['clock']} time"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, min_width=len(title))
    table.add_column("setting")
    for heading in ("box AP", "mask AP", "ms/image", "time", "quartiles"):
        table.add_column(heading, justify="right")
    for point in report["points"]:
        table.add_row(
            f"{point['curve']}, {point['label']}",
            percent(point["box"]["ap"]),
            percent(point["mask"]["ap"]),
            f"{1000 * point['seconds_per_image']:.1f}",
            f"{point['ratio']:.3f}",
            f"{point['ratio_low']:.3f}–{point['ratio_high']:.3f}",
        )
    (console or terminal()).print(table)
