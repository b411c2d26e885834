"""Pictures and tables of the analysis of loops."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text
from PIL import Image

from r3cnn.evaluation.error_report import ErrorReport, ErrorSettings, error_report
from r3cnn.evaluation.ground_truth import GroundTruth, Instance
from r3cnn.evaluation.metrics_format import RoiReport
from r3cnn.evaluation.roi_report import roi_report
from r3cnn.reporting import fonts
from r3cnn.reporting.console import terminal
from r3cnn.reporting.drawing import Mark, draw_marks
from r3cnn.reporting.errors import draw_errors, print_errors
from r3cnn.reporting.fonts import default_font, font_with, runs_of
from r3cnn.reporting.panels import figure_in
from r3cnn.reporting.rois import _largest, draw_figure_2, draw_roi_statistics, print_roi_tables, read_roi_report

CLASSES = ("cat", "dog")


@pytest.fixture
def only_stix(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine on which one font is installed, which comes with every matplotlib."""
    installed = default_font().with_name("STIXGeneral.ttf")
    monkeypatch.setattr(fonts, "_installed", lambda: [installed])
    font_with.cache_clear()
    yield installed
    font_with.cache_clear()


def rois(loops: int, rois_per_bin: int = 10) -> RoiReport:
    """Two images whose RoIs spread evenly over all bins; nothing was refined in the last loop."""
    counts = {
        "images": np.array(2),
        "histogram": np.full((loops, 20), rois_per_bin),
        "classes": np.full((loops, 2, 2), 5),
        "sizes": np.full((loops, 3, 2), 5),
        "background": np.full(loops, 0),
        "ignored": np.full(loops, 0),
        "gains": np.full((loops, 3, 20), 1),
        "positive_gains": np.full((loops, 3), 4),
    }
    counts["gains"][-1] = counts["positive_gains"][-1] = 0
    return roi_report(counts, (0.5, 0.6, 0.7)[:loops], CLASSES)


def colors(path: Path) -> int:
    """How many colours a picture has: an empty diagram has few."""
    return len(np.unique(np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3), axis=0))


def test_figure_2_has_one_panel_per_run_and_a_run_without_rois_is_drawn_as_well(tmp_path: Path) -> None:
    one, three = tmp_path / "one.png", tmp_path / "three.png"
    draw_figure_2({"mask": rois(1)}, one, from_iou=0.5)
    draw_figure_2({"mask": rois(1), "decreasing": rois(3), "nothing": rois(3, 0)}, three, from_iou=0.5)
    assert Image.open(three).width == pytest.approx(3 * Image.open(one).width, abs=3)
    assert colors(three) > colors(one) > 20


@pytest.mark.parametrize("rois_per_bin", [10, 0])
def test_the_statistics_of_a_run_are_drawn(tmp_path: Path, rois_per_bin: int) -> None:
    draw_roi_statistics(rois(3, rois_per_bin), tmp_path / "rois.png")
    assert colors(tmp_path / "rois.png") > 20


def test_of_many_classes_those_with_most_positives_are_drawn() -> None:
    loops = {loop: {str(n): {"positives": n, "negatives": 9 - n} for n in range(10)} for loop in "12"}
    assert _largest(loops) == ["9", "8", "7", "6", "5", "4", "3", "2"]


def test_a_report_is_read_back_as_it_was_and_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "roi_statistics.json"
    with pytest.raises(FileNotFoundError, match=r"roi_statistics\.json does not exist.*`rois`"):
        read_roi_report(path)
    path.write_text(json.dumps(rois(2)))
    assert read_roi_report(path) == rois(2)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        read_roi_report(path)
    path.write_text('{"images": 3}')
    with pytest.raises(ValueError, match="missing required field `bin_edges`"):
        read_roi_report(path)


def test_the_table_of_rois_counts_per_image() -> None:
    text = io.StringIO()
    print_roi_tables({"naive": rois(2)}, terminal(file=text, width=120))
    rows = [line.split() for line in text.getvalue().splitlines() if line.strip().startswith(("1 ", "2 "))]
    assert rows[0] == ["1", "0.5", "100.0", "7.5", "2.5", "2.5", "2.5", "1.000", "1.000", "0.000", "100.0"]
    assert rows[1][:3] == ["2", "0.6", "100.0"]
    assert rows[1][-2:] == ["–", "–"]


def errors() -> ErrorReport:
    """One cat and one dog: loop 1 misses the cat and misplaces the dog, loop 2 finds the cat alone."""
    cat: Instance = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
    dog: Instance = {**cat, "id": 2, "category_id": 2, "bbox": [50, 50, 20, 20], "area": 400}
    truth = GroundTruth({1: (100, 100)}, {1: "cat", 2: "dog"}, (cat, dog))
    displaced: Instance = {**dog, "bbox": [50, 50, 20, 8], "score": 0.5}
    loops = [[displaced], [{**cat, "score": 0.9}]]
    # Boxes stand in for masks too: what is drawn is the same.
    report = error_report(truth, loops, [[], []], [1], ErrorSettings((0.5,), 0.1, 0.3, 100))
    return {**report, "mask": report["box"]}


def test_what_each_loop_repaired_and_broke_stands_in_the_table() -> None:
    text = io.StringIO()
    print_errors(errors(), terminal(file=text, width=120))
    rows = [line.split() for line in text.getvalue().splitlines() if line.strip().startswith(("1 ", "2 "))]
    # Half of AP is lost to the misplaced dog, half to the missed cat: nothing of a cat is left to be wrong about.
    assert rows[0] == ["1", "0.0", "0.0", "50.0", "0.0", "0.0", "0.0", "50.0", "0.0", "50.0"]
    assert rows[2] == ["1", "0", "2"]
    assert rows[3] == ["2", "1", "2", "+0", "-0", "+0", "-0", "+1", "-0", "+1"]


def test_errors_are_drawn(tmp_path: Path) -> None:
    draw_errors(errors(), tmp_path)
    for name in ("errors", "precision_recall", "confusion_box", "confusion_mask"):
        assert colors(tmp_path / f"{name}.png") > 20


HOSTILE = ("$", "US$ \\bad{$", "a_b^c", "\x1b[0m\n", "half \ud83d", "x" * 1000, "", "_hidden", "猫", "قط", "🐈")


def test_names_are_text_whatever_they_mean_to_matplotlib(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    report = rois(3)
    for loop in report["loops"].values():
        loop["per_class"] = dict.fromkeys(HOSTILE, next(iter(loop["per_class"].values())))
    draw_roi_statistics(report, tmp_path / "rois.png")
    draw_figure_2(dict.fromkeys(HOSTILE, report), tmp_path / "runs.pdf", from_iou=0.5)
    both = {**errors(), "classes": [*HOSTILE]}
    for kind in ("box", "mask"):
        both[kind]["1"]["confusion"] = np.eye(len(HOSTILE) + 1, dtype=int).tolist()  # type: ignore[literal-required]
        both[kind] = {"1": both[kind]["1"]}  # type: ignore[literal-required]
    draw_errors(both, tmp_path)
    assert all(colors(tmp_path / name) > 20 for name in ("rois.png", "confusion_box.png"))
    assert [str(each.message) for each in recwarn] == []


def test_a_formula_is_drawn_letter_by_letter(tmp_path: Path) -> None:
    widths = []
    for name in ("$x^2$", "abcde"):
        with figure_in(tmp_path / "figure.png", 3, 2) as figure:
            text = figure.text(0, 0, name)
        widths.append(text.get_window_extent().width)
    assert widths[0] == pytest.approx(widths[1], rel=0.25)  # five letters; x² alone has half of it


@pytest.mark.parametrize(
    "write",
    [
        lambda axes, name: axes.text(0.4, 0.4, name),
        lambda axes, name: axes.barh([name], [1]),
        lambda axes, name: axes.bar([name], [1]),
        lambda axes, name: axes.set_xticks([0], labels=[name]),
        lambda axes, name: (axes.plot([0, 1], label=name), axes.legend()),
        lambda axes, name: axes.set_title(name),
    ],
)
def test_figures_write_names_in_an_installed_font_that_has_their_characters(
    tmp_path: Path, only_stix: Path, write: Callable[[Axes, str], object]
) -> None:
    with figure_in(tmp_path / "figure.png", 3, 2) as figure:
        write(figure.subplots(), "a\u24b6")
    written = [text for text in figure.findobj(Text) if text.get_text() == "a\u24b6"]
    assert written
    assert all(text.get_fontfamily() == ["DejaVu Sans", "STIXGeneral"] for text in written)


def test_pictures_write_names_in_an_installed_font_that_has_their_characters(only_stix: Path) -> None:
    names = ("\u24b6", "\U0010fffd")  # a letter that DejaVu lacks, and a character that is in no font: a box
    marks = [Mark((50, 200, 350, 390), (255, 255, 255), name) for name in names]
    known, unknown = (np.asarray(draw_marks(Image.new("RGB", (400, 400)), [mark])) for mark in marks)
    assert not np.array_equal(known, unknown)
    assert runs_of("a\u24b6 b") == [("a", default_font()), ("\u24b6", only_stix), (" b", default_font())]
