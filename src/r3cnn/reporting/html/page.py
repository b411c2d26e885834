"""The report as one file: no network, no other file, opens from the disk."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import r3cnn
from r3cnn.names import visible
from r3cnn.reporting.drawing import iou_color
from r3cnn.reporting.html.charts import series_dashes
from r3cnn.reporting.html.pictures import PictureSettings
from r3cnn.reporting.html.runs import page_runs, runs_table
from r3cnn.reporting.html.sections import ROI_FILES, curves_of, groups_of, histograms, pictures_of
from r3cnn.reporting.panels import COLORS
from r3cnn.reporting.runs import Run
from r3cnn.reporting.tables import MISSING, NOT_RUN, Cell, Table, mark, marks
from r3cnn.run_files import write_text

PACKAGE = "r3cnn.reporting.html"


@dataclass(frozen=True)
class HtmlSettings:
    """What the page takes room for.

    Attributes:
        pictures: How many pictures per run, and how large.
        curve_points: Longer curves are averaged down to so many points.
        detailed_runs: So many runs have their own curves and histograms.
    """

    pictures: PictureSettings
    curve_points: int
    detailed_runs: int


def write_html(
    path: Path,
    runs: Sequence[Run],
    tables: Sequence[Table],
    differences: Sequence[Table],
    settings: HtmlSettings,
    left_out: Sequence[str] = (),
) -> None:
    """Writes the page; equal runs give equal bytes.

    Args:
        path: ``report.html``.
        runs: Finished runs, in the order of their numbers.
        tables: The paper's tables, ours beside the published values.
        differences: Differences between systems with their intervals.
        settings: What the page takes room for.
        left_out: Runs that cannot be read, each with the reason.
    """
    environment = Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (mark, marks, heading_groups, sort_value, series_dashes)
    environment.filters |= {each.__name__: each for each in filters}
    script, numbered = _resource("report.js"), page_runs(runs)
    content = environment.get_template("report.html.j2").render(
        version=r3cnn.__version__,
        style=Markup(_style()),
        script=Markup(script),
        script_hash=_sha256(script),
        tables=tables,
        differences=differences,
        runs_table=runs_table(numbered),
        groups=groups_of(numbered),
        histograms=[histograms(numbered[: settings.detailed_runs], split) for split in ROI_FILES],
        pictures=[pictures_of(run, settings.pictures, len(runs)) for run in numbered],
        curves=[
            curves_of(run, settings.curve_points if run.number <= settings.detailed_runs else 0) for run in numbered
        ],
        num_colors=len(COLORS),
        num_undetailed=max(0, len(runs) - settings.detailed_runs),
        left_out=left_out,
    )
    write_text(content, path)


def _shown(value: object) -> object:
    """What stands on the page for a value: all of a text, and markup as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def heading_groups(table: Table) -> list[tuple[str, int]]:
    """Quantities above the headings with the number of columns that each spans; empty where a column stands alone."""
    spans = groupby(enumerate(table.columns), key=lambda at: at[1].group or at[0])
    return [(group if isinstance(group, str) else "", len([*members])) for group, members in spans]


def sort_value(cell: Cell) -> str:
    """What a column sorts by; nothing for a cell without content, which stays at the end."""
    if cell.value is not None:
        return repr(cell.value)
    return "" if cell.text in (MISSING, NOT_RUN) else cell.text


def _resource(name: str) -> str:
    return resources.files(PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")


def _style() -> str:
    """The style sheet, with the colours of the pictures' IoU scale."""
    ramp = ", ".join(f"rgb{iou_color(0.5 + step / 20)}" for step in range(11))
    return _resource("report.css").replace("IOU_RAMP", ramp)


def _sha256(script: str) -> str:
    """As a content security policy names the one script that may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
