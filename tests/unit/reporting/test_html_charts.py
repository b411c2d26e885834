"""The page's diagrams."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from page_samples import CURVES, roi_report

from r3cnn.reporting.html.charts import (
    histogram_chart,
    histogram_top,
    loops_chart,
    loss_charts,
    parameters_chart,
    series_color,
    series_dashes,
    thinned,
)
from r3cnn.reporting.panels import COLORS
from r3cnn.reporting.rois import read_roi_report

LINES = {1: ((1, 30.0), (2, 33.5), (3, 34.0)), 8: ((1, 31.0),)}
NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{NAMESPACE}text")]


def test_text_in_a_diagram_stays_text_and_a_run_is_told_by_its_number() -> None:
    found = texts(loops_chart(LINES, "box", "a").svg)
    assert {"box AP (%)", "evaluation loop", "1", "8"} <= set(found)


def test_ids_of_two_diagrams_never_meet() -> None:
    ids = []
    for name in ("a", "b"):
        chart = parameters_chart(LINES, "mask", name)
        ids += re.findall(r' id="([^"]*)"', chart.svg)
        used = re.findall(r'(?:href="#|url\(#)([^")]*)', chart.svg)
        assert used
        assert set(used) <= set(ids)
    assert len(ids) == len(set(ids))


def test_colours_are_the_pages_so_that_they_follow_light_and_dark() -> None:
    svg = loops_chart(LINES, "box", "a").svg
    assert not re.search(r"(?:fill|stroke): #", svg)
    assert {"var(--ink)", "var(--grid)", "var(--series-0)", "var(--series-1)"} <= set(
        re.findall(r"var\([a-z0-9-]+\)", svg)
    )


def test_a_diagram_brings_no_style_sheet_that_would_reach_the_rest_of_the_page() -> None:
    assert "<style" not in loops_chart(LINES, "box", "a").svg


def test_equal_values_give_equal_text() -> None:
    assert loops_chart(LINES, "box", "a") == loops_chart(LINES, "box", "a")


def test_twenty_four_runs_differ_in_colour_or_dashes() -> None:
    looks = {(series_color(number), series_dashes(number)) for number in range(1, 25)}
    assert len(looks) == 24
    assert series_color(1 + len(COLORS)) == series_color(1)


def test_histograms_share_a_scale_with_room_above_the_highest_sum_of_the_loops(tmp_path: Path) -> None:
    (tmp_path / "rois.json").write_text(json.dumps(roi_report(3)))
    report = read_roi_report(tmp_path / "rois.json")
    assert histogram_top([report], 0.5) == pytest.approx((10 + 20 + 30) / 10 / (1 - 0.08 * 3.5))
    assert histogram_top([report], 0.55) == 1.0  # nothing there: any scale will do
    chart = histogram_chart(report, "rois", "naive", "c", from_iou=0.5, top=7.5)
    assert chart.caption == "(c) naive"
    assert "RoIs per image" in texts(chart.svg)


def test_every_known_column_of_the_metrics_becomes_a_curve(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CURVES)
    charts = loss_charts(tmp_path / "metrics.csv", "losses", 100)
    assert [chart.caption for chart in charts] == [
        "At the end: total 2",
        "At the end: loop 1 1",
        "At the end: loop 1 25",
    ]
    titles = ("total loss", "class loss per loop, unweighted", "validation box AP (%)")
    assert all(title in texts(chart.svg) for title, chart in zip(titles, charts, strict=True))


def test_long_curves_are_averaged_down_and_keep_their_last_step() -> None:
    steps, values = thinned((np.arange(10.0), np.arange(10.0)), 5)
    assert steps.tolist() == [1, 3, 5, 7, 9]
    assert values.tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]


def test_short_curves_stay_as_they_are() -> None:
    steps, values = thinned((np.arange(3.0), np.ones(3)), 5)
    assert (steps.tolist(), values.tolist()) == ([0, 1, 2], [1, 1, 1])
