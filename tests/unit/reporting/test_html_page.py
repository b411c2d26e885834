"""The page as text; what a browser makes of it stands in tests/integration/test_html_browser.py."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from page_samples import SETTINGS, write_run

from r3cnn.reporting.html import write_html
from r3cnn.reporting.html.page import sort_value
from r3cnn.reporting.html.runs import page_runs
from r3cnn.reporting.runs import Run
from r3cnn.reporting.tables import NOT_RUN, Cell, Column, Table

EVIL = '<script>alert("x")</script>\x1b\x00\udcfc'  # the last: a byte of a file's name that is no UTF-8


class Page(HTMLParser):
    """Collects elements, ids, addresses and the text of table cells by class."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.cells: dict[str, list[str]] = {}
        self._cell = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.addresses += [values[key] or "" for key in ("href", "src", "xlink:href", "action") if key in values]
        if tag == "td" and values.get("class"):
            self._cell = values["class"] or ""
            self.cells.setdefault(self._cell, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = "" if tag == "td" else self._cell

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.cells[self._cell][-1] += data


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path / "run")


@pytest.fixture
def table() -> Table:
    return paper_table()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of two runs, with a script in every name."""
    folder = tmp_path_factory.mktemp("page")
    first = write_run(folder / "run")
    second = write_run(folder / "other", aps=(0.2,))
    return written(
        folder / "a.html", [replace(first, data=EVIL), replace(second, name=f"{first.name}/{EVIL}")], paper_table()
    )


def paper_table() -> Table:
    numbers = (Column("ours", "measured", "BAP"), Column("paper", "published", "BAP"), Column("Δ", "difference", "BAP"))
    row = (Cell(EVIL), Cell("41.2", 41.2), Cell("41.7", 41.7, (0,)), Cell("−0.5", -0.5))
    remarks = (f"printed twice {EVIL}",)
    return Table(
        "table1", f"Table 1 {EVIL}", f"ours: demo {EVIL}", (Column("Model", "name"), *numbers), (row,), remarks
    )


def written(path: Path, runs: list[Run], *tables: Table) -> str:
    write_html(path, runs, tables, [], SETTINGS)
    return path.read_text(encoding="utf-8")


def test_equal_runs_give_equal_bytes(run: Run, table: Table, tmp_path: Path) -> None:
    assert written(tmp_path / "a.html", [run], table) == written(tmp_path / "b.html", [run], table)


def test_every_text_is_escaped(text: str) -> None:
    assert Page(text).tags.count("script") == 1
    assert "<script>alert" not in text
    assert text.count("&lt;/script&gt;\\x1b\\x00\\udcfc") >= 8
    assert text.count("&lt;script&gt;") >= 8


def test_the_page_refers_to_nothing_outside_itself(text: str) -> None:
    page = Page(text)
    assert page.addresses
    assert [address for address in page.addresses if not address.startswith(("#", "data:"))] == []
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_no_id_occurs_twice(text: str) -> None:
    ids = Page(text).ids
    assert sorted(ids) == sorted(set(ids))


def test_measured_published_and_difference_stand_in_cells_of_their_own_kind(text: str) -> None:
    cells = Page(text).cells
    assert cells["published"] == ["41.7a"]
    assert cells["difference"] == ["−0.5"]
    assert cells["measured"][0] == "41.2"
    assert "50.0" in cells["measured"]  # the run's own AP, in the table of all runs
    assert not any("41.7" in cell for cell in cells["measured"])


def test_the_papers_inconsistencies_are_marked_at_the_cell(text: str) -> None:
    assert '41.7<sup class="mark"><abbr title="printed twice' in text
    assert "<li><sup>a</sup> printed twice" in text


def test_a_quantity_stands_once_above_its_columns(text: str) -> None:
    assert '<th scope=colgroup colspan="3">BAP</th>' in text


def test_cells_without_content_sort_as_nothing() -> None:
    assert [sort_value(cell) for cell in (Cell("–"), Cell(NOT_RUN), Cell("1 k", 1000), Cell("naive"))] == [
        "",
        "",
        "1000",
        "naive",
    ]


def test_runs_are_named_by_what_tells_their_folders_apart(run: Run, tmp_path: Path) -> None:
    others = [replace(run, name=str(tmp_path / name)) for name in ("sweeps/a-1", "sweeps/b-2", "c")]
    assert [one.name for one in page_runs(others)] == ["sweeps/a-1", "sweeps/b-2", "c"]
    assert [one.name for one in page_runs(others[:1])] == ["a-1"]
    assert [one.number for one in page_runs(others)] == [1, 2, 3]


def test_a_page_without_the_pictures_says_so_and_has_all_the_rest(run: Run, tmp_path: Path) -> None:
    shutil.rmtree(Path(run.name) / "pictures")
    text = written(tmp_path / "a.html", [run])
    assert "No pictures: the run&#39;s folder has no pictures/*_loops.png" in text
    assert text.count("<svg xmlns") >= 5
    assert "<img" not in text


def test_a_run_that_left_only_its_metrics_still_stands_in_tables_and_diagrams(run: Run, tmp_path: Path) -> None:
    shutil.rmtree(run.name)
    text = written(tmp_path / "a.html", [run])
    assert "the run&#39;s folder has no metrics.csv" in text
    assert "None of these runs left statistics of the RoIs of training" in text
    assert 'id="group-1-loops-box-figure_1"' in text


def test_a_broken_file_of_one_run_is_named_and_does_not_stop_the_page(run: Run, tmp_path: Path) -> None:
    (Path(run.name) / "roi_statistics_train.json").write_text("{}")
    (Path(run.name) / "metrics.csv").write_text("a,b\n1,2\n")
    text = written(tmp_path / "a.html", [run])
    assert re.search(r"roi_statistics_train\.json does not hold .*`images`", text)
    assert re.search(r"metrics\.csv has no column", text)


def test_runs_on_other_images_share_no_diagram(run: Run, tmp_path: Path) -> None:
    other = replace(run, name=f"{run.name}_other", data="coco instances_val2017")
    text = written(tmp_path / "a.html", [run, other])
    assert '<h3 class="long">shapes instances_val</h3>' in text
    assert '<h3 class="long">coco instances_val2017</h3>' in text
    assert 'id="group-2-loops-mask-figure_1"' in text


def test_histograms_come_in_the_papers_order(run: Run, tmp_path: Path) -> None:
    one = replace(run, name=str(tmp_path / "one"), iou_thresholds=(0.5,))
    falling = replace(run, name=str(tmp_path / "falling"), iou_thresholds=(0.7, 0.6, 0.5))
    for copy in (one, falling):
        shutil.copytree(run.name, copy.name)
    text = written(tmp_path / "a.html", [run, falling, one])
    assert re.findall(r"<figcaption>\((.)\) ([a-z ]+)</figcaption>", text) == [
        ("a", "one"),
        ("b", "falling"),
        ("c", "run"),
    ]
