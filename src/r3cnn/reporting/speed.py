"""AP and time of the optional modes of inference: a table on the terminal and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from r3cnn.evaluation.protocol import Stats
from r3cnn.names import shortened
from r3cnn.reporting.console import percent, plain_table, terminal
from r3cnn.reporting.panels import COLORS, INK, PANEL_SIZE, dress, figure_in
from r3cnn.run_files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console

KINDS = ("box", "mask")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p")  # more than colours, so that no two curves look alike


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
    report = read_speed(path)
    title = f"{report['images']} images, AP in %, {report['clock']} time"
    table = plain_table(title, ("setting", "box AP", "mask AP", "ms/image", "time", "quartiles"), names=1)
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


def draw_speed(report: Path, path: Path) -> None:
    """Draws box and mask AP over the time beside that of the network as it was trained, one line per mode.

    Args:
        report: ``speed.json``.
        path: PNG, PDF or SVG file.
    """
    plain, *points = read_speed(report)["points"]
    label = f"{plain['curve']}, {plain['label']}"
    with figure_in(path, 1.3 * PANEL_SIZE[0] * len(KINDS), 1.2 * PANEL_SIZE[1]) as figure:
        for kind, axes in zip(KINDS, figure.subplots(1, len(KINDS)), strict=True):
            for number, curve in enumerate(dict.fromkeys(point["curve"] for point in points)):
                _draw_curve(axes, [point for point in points if point["curve"] == curve], kind, number)
            axes.axhline(_ap(plain, kind), color=INK, linewidth=0.7, linestyle=":")
            axes.plot([1.0], [_ap(plain, kind)], "*", color=INK, markersize=11, label=label)
            axes.legend(frameon=False, fontsize=7.5, loc="lower right")
            dress(axes, f"{kind} AP (%)", "time of detection, network as trained = 1")


def _draw_curve(axes: Axes, points: list[SpeedPoint], kind: str, number: int) -> None:
    at, values = [point["ratio"] for point in points], [_ap(point, kind) for point in points]
    color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
    axes.plot(
        at, values, marker=marker, color=color, linewidth=1.3, markersize=4.5, label=shortened(points[0]["curve"])
    )
    for point, x, y in zip(points, at, values, strict=True):
        axes.annotate(
            point["label"].removesuffix(" loops"), (x, y), (3, 3), textcoords="offset points", fontsize=6, color=color
        )


def _ap(point: SpeedPoint, kind: str) -> float:
    value = (point["box"] if kind == "box" else point["mask"])["ap"]
    return 100 * (value or 0.0)
