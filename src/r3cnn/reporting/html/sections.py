"""What belongs to a group of runs, and to one run: diagrams and pictures, or why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from r3cnn.reporting.html.charts import (
    Chart,
    Line,
    histogram_chart,
    histogram_top,
    loops_chart,
    loss_charts,
    parameters_chart,
    series_dashes,
)
from r3cnn.reporting.html.pictures import LoopPictures, NoPicturesError, PictureSettings, loop_pictures
from r3cnn.reporting.html.runs import KINDS, PageRun
from r3cnn.reporting.panels import COLORS
from r3cnn.reporting.rois import read_roi_report
from r3cnn.reporting.tables import mark
from r3cnn.run_files import NUMBERS, ROIS, TRAINING_ROIS, own_file

ROI_FILES = {"training": TRAINING_ROIS, "evaluation": ROIS}


@dataclass(frozen=True)
class LegendEntry:
    """How a run is drawn.

    Attributes:
        number: Of the run in the table of runs, from 1.
        name: Of the run.
        color: Number of the page's colour.
        dashes: For SVG's ``stroke-dasharray``.
    """

    number: int
    name: str
    color: int
    dashes: str


@dataclass(frozen=True)
class Group:
    """Runs that were scored on the same images.

    Attributes:
        title: What they share.
        legend: The runs.
        charts: AP against loops and parameters.
    """

    title: str
    legend: tuple[LegendEntry, ...]
    charts: tuple[Chart, ...]


@dataclass(frozen=True)
class RunSection:
    """What one run left.

    Attributes:
        number: Of the run in the table of runs, from 1.
        name: Of the run.
        charts: Losses and AP over its steps, or empty.
        pictures: Images loop by loop, or empty.
        charts_missing: Why, where there are no charts.
        pictures_missing: Why, where there are no pictures.
    """

    number: int
    name: str
    charts: tuple[Chart, ...]
    pictures: tuple[LoopPictures, ...]
    charts_missing: str
    pictures_missing: str


@dataclass(frozen=True)
class Histograms:
    """The panels of figure 2.

    Attributes:
        split: Whose RoIs: of training or evaluation.
        charts: One per run that left statistics.
        problems: Files that cannot be used, and why.
    """

    split: str
    charts: tuple[Chart, ...]
    problems: tuple[str, ...]


def groups_of(runs: Sequence[PageRun]) -> list[Group]:
    """AP against loops and parameters, one group of diagrams per data set."""
    members: dict[tuple[str, ...], list[PageRun]] = {}
    for run in runs:
        members.setdefault(run.group, []).append(run)
    return [_group(group, f"group-{at}") for at, group in enumerate(members.values(), start=1)]


def _group(members: Sequence[PageRun], name: str) -> Group:
    charts = []
    for kind in KINDS:
        lines = [line for run in members if (line := _loop_line(run, kind)).points]
        if lines:
            charts.append(loops_chart(lines, kind, f"{name}-loops-{kind}"))
    for kind in KINDS:
        points = [line for run in members if (line := _parameter_point(run, kind)).points]
        if points:
            charts.append(parameters_chart(points, kind, f"{name}-parameters-{kind}"))
    return Group(members[0].group_title, tuple(map(_legend_entry, members)), tuple(charts))


def _legend_entry(run: PageRun) -> LegendEntry:
    dashes = " ".join(f"{dash:g}" for dash in series_dashes(run.number))
    return LegendEntry(run.number, run.name, (run.number - 1) % len(COLORS), dashes)


def _loop_line(run: PageRun, kind: str) -> Line:
    loops = sorted((int(loop), scores[kind].get("ap")) for loop, scores in run.run.metrics["loops"].items())
    return Line(run.number, tuple((float(loop), 100 * ap) for loop, ap in loops if ap is not None))


def _parameter_point(run: PageRun, kind: str) -> Line:
    metrics, record = run.run.metrics, run.run.record
    ap = (metrics["box"] if kind == "box" else metrics["mask"]).get("ap")
    if record is None or ap is None:
        return Line(run.number, ())
    return Line(run.number, ((record.parameters.trainable / 1e6, 100 * ap),))


def histograms(runs: Sequence[PageRun], split: str) -> Histograms:
    """Figure 2 from the runs that have statistics, in the order of the paper's panels: one loop, falling, rising."""
    reports, problems = [], []
    for run in sorted(runs, key=_panel_order):
        path = run.folder / ROI_FILES[split]
        try:
            reports += [(run, read_roi_report(path))] if path.exists() else []
        except (OSError, ValueError) as error:
            problems.append(str(error))
    thresholds = [loop["iou_threshold"] for _, report in reports for loop in report["loops"].values()]
    lowest = min(thresholds, default=0.0)
    top = histogram_top([report for _, report in reports], lowest)
    charts = (
        histogram_chart(report, f"rois-{split}-{at}", run.name, mark(at), from_iou=lowest, top=top)
        for at, (run, report) in enumerate(reports)
    )
    return Histograms(split, tuple(charts), tuple(problems))


def _panel_order(run: PageRun) -> tuple[bool, bool]:
    thresholds = run.run.iou_thresholds
    return len(thresholds) > 1, list(thresholds) == sorted(thresholds)


def run_section(run: PageRun, settings: PictureSettings, curve_points: int, runs: int) -> RunSection:
    """Curves and pictures of one of several runs, or why there are none."""
    charts, charts_missing = _curves(run, curve_points)
    pictures: list[LoopPictures] = []
    pictures_missing = "none were asked for"
    try:
        num_loops = len(run.run.metrics["loops"])
        pictures = loop_pictures(run.folder, num_loops, settings, runs)
    except NoPicturesError as error:
        pictures_missing = str(error)
    return RunSection(run.number, run.name, tuple(charts), tuple(pictures), charts_missing, pictures_missing)


def _curves(run: PageRun, max_points: int) -> tuple[list[Chart], str]:
    """Diagrams, and what to say where there are none."""
    if not max_points:
        return [], "those of the first runs alone are drawn, html.detailed_runs; name this run to see its own"
    if not (run.folder / NUMBERS).exists():
        return [], f"the run's folder has no {NUMBERS}, which logger=csv writes"
    try:
        path = own_file(run.folder, NUMBERS)
        return loss_charts(path, f"losses-{run.number}", max_points), f"{NUMBERS} holds nothing to draw"
    except Exception as error:  # whatever matplotlib makes of the numbers; the other runs are worth showing
        return [], str(error)
