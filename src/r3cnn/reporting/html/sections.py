"""What belongs to a group of runs, and to one run: diagrams and pictures, or why there are none."""

from __future__ import annotations

from collections.abc import Sequence

from r3cnn.reporting.html.charts import (
    Chart,
    histogram_chart,
    histogram_top,
    loops_chart,
    loss_charts,
    parameters_chart,
)
from r3cnn.reporting.html.pictures import LoopPictures, NoPicturesError, PictureSettings, loop_pictures
from r3cnn.reporting.html.runs import KINDS, PageRun
from r3cnn.reporting.rois import read_roi_report
from r3cnn.reporting.tables import mark
from r3cnn.run_files import NUMBERS, ROIS, TRAINING_ROIS, own_file

ROI_FILES = {"training": TRAINING_ROIS, "evaluation": ROIS}


def groups_of(runs: Sequence[PageRun]) -> list[tuple[str, list[PageRun], list[Chart]]]:
    """Runs that were scored on the same images: what they share, in words, and AP against loops and parameters."""
    members: dict[tuple[str, ...], list[PageRun]] = {}
    for run in runs:
        members.setdefault(run.group, []).append(run)
    return [
        (group[0].group_title, group, _group_charts(group, f"group-{at}"))
        for at, group in enumerate(members.values(), start=1)
    ]


def _group_charts(members: Sequence[PageRun], name: str) -> list[Chart]:
    charts = []
    for chart, points, title in (
        (loops_chart, _loop_points, "loops"),
        (parameters_chart, _parameter_point, "parameters"),
    ):
        for kind in KINDS:
            lines = {run.number: found for run in members if (found := points(run, kind))}
            charts += [chart(lines, kind, f"{name}-{title}-{kind}")] if lines else []
    return charts


def _loop_points(run: PageRun, kind: str) -> list[tuple[float, float]]:
    loops = sorted((int(loop), scores[kind].get("ap")) for loop, scores in run.run.metrics["loops"].items())
    return [(float(loop), 100 * ap) for loop, ap in loops if ap is not None]


def _parameter_point(run: PageRun, kind: str) -> list[tuple[float, float]]:
    metrics, record = run.run.metrics, run.run.record
    ap = (metrics["box"] if kind == "box" else metrics["mask"]).get("ap")
    return [] if record is None or ap is None else [(record.parameters.trainable / 1e6, 100 * ap)]


def histograms(runs: Sequence[PageRun], split: str) -> tuple[str, list[Chart], list[str]]:
    """Figure 2 from the runs that left statistics, in the order of the paper's panels: one loop, falling, rising.

    Args:
        runs: To choose from.
        split: Whose RoIs: of ``training`` or ``evaluation``.

    Returns:
        ``split``, the panels, and the files that cannot be used, with the reason.
    """
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
    charts = [
        histogram_chart(report, f"rois-{split}-{at}", run.name, mark(at), from_iou=lowest, top=top)
        for at, (run, report) in enumerate(reports)
    ]
    return split, charts, problems


def _panel_order(run: PageRun) -> tuple[bool, bool]:
    thresholds = run.run.iou_thresholds
    return len(thresholds) > 1, list(thresholds) == sorted(thresholds)


def pictures_of(run: PageRun, settings: PictureSettings, runs: int) -> tuple[PageRun, list[LoopPictures], str]:
    """One of several runs with its images loop by loop, and what to say where there are none."""
    try:
        return run, loop_pictures(run.folder, len(run.run.metrics["loops"]), settings, runs), "none were asked for"
    except NoPicturesError as error:
        return run, [], str(error)


def curves_of(run: PageRun, max_points: int) -> tuple[PageRun, list[Chart], str]:
    """A run with its losses and AP over its steps, and what to say where there are none."""
    if not max_points:
        return run, [], "those of the first runs alone are drawn, html.detailed_runs; name this run to see its own"
    if not (run.folder / NUMBERS).exists():
        return run, [], f"the run's folder has no {NUMBERS}, which logger=csv writes"
    try:
        path = own_file(run.folder, NUMBERS)
        return run, loss_charts(path, f"losses-{run.number}", max_points), f"{NUMBERS} holds nothing to draw"
    except Exception as error:  # whatever matplotlib makes of the numbers; the other runs are worth showing
        return run, [], str(error)
