import csv
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r3cnn.reporting.curves import panels_of, plot_training_curves, read_series, running_mean

COLUMNS = [
    "train/loss",
    "train/rpn/objectness",
    "train/rpn/box",
    "train/loop1/cls",
    "train/loop10/cls",
    "train/loop2/cls",
    "train/weighted/loop1/cls",
    "train/loop1/mask_step",
    "lr-SGD",
    "val/mask_ap",
    "val/loop1/mask_ap",
    "val/box_ap",
]


def write(path: Path, rows: list[dict[str, float | str]]) -> Path:
    columns = sorted({key for row in rows for key in row})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_columns_find_their_panels_and_loops_are_in_numerical_order() -> None:
    panels = {panel.title: panel.curves for panel in panels_of(COLUMNS)}
    assert panels["total loss"] == {"total": "train/loss"}
    assert panels["RPN losses"] == {"objectness": "train/rpn/objectness", "box": "train/rpn/box"}
    classes = panels["class loss per loop, unweighted"]
    assert list(classes.items()) == [
        ("loop 1", "train/loop1/cls"),
        ("loop 2", "train/loop2/cls"),
        ("loop 10", "train/loop10/cls"),
    ]
    assert panels["box loss per loop, unweighted"] == {}
    assert panels["mask loss per loop, unweighted"] == {"loop 1": "train/loop1/mask_step"}
    assert panels["validation mask AP (%)"] == {"loop 1": "val/loop1/mask_ap"}
    assert panels["validation box AP (%)"] == {"AP": "val/box_ap"}
    assert panels["learning rate"] == {"": "lr-SGD"}


def test_the_value_of_each_step_is_preferred_to_the_mean_of_the_epoch() -> None:
    panels = {panel.title: panel.curves for panel in panels_of(["train/loss_epoch", "train/loss_step"])}
    assert panels["total loss"] == {"total": "train/loss_step"}


def test_empty_and_non_finite_cells_are_left_out(tmp_path: Path) -> None:
    rows = [{"step": 0, "train/loss": 3.0}, {"step": 1, "train/loss": ""}, {"step": 2, "train/loss": "nan"}]
    steps, values = read_series(write(tmp_path / "metrics.csv", [*rows, {"step": 3, "train/loss": 1.0}]))["train/loss"]
    assert (steps.tolist(), values.tolist()) == ([0.0, 3.0], [3.0, 1.0])


def test_the_running_mean_looks_back_only() -> None:
    assert running_mean(np.array([4.0, 2.0, 0.0, 6.0]), 2).tolist() == [4.0, 3.0, 1.0, 3.0]


def test_curves_are_drawn_as_a_picture_with_ink(tmp_path: Path) -> None:
    rows = [{"step": step, **dict.fromkeys(COLUMNS, 1 / (1 + step))} for step in range(30)]
    plot_training_curves(write(tmp_path / "metrics.csv", rows), tmp_path / "new" / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "new" / "curves.png").convert("RGB"))
    assert picture.shape[1] > 1000
    assert (picture < 128).any(axis=2).mean() > 0.005


def test_one_column_is_enough(tmp_path: Path) -> None:
    plot_training_curves(write(tmp_path / "metrics.csv", [{"step": 0, "val/mask_ap": 0.5}]), tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width < 800


@pytest.mark.parametrize("rows", [[{"step": 0, "other": 1.0}], [{"step": 0, "val/mask_ap": math.nan}], None])
def test_a_run_that_has_logged_nothing_to_draw_yet_has_no_curves(
    tmp_path: Path, rows: list[dict[str, float]] | None
) -> None:
    path = tmp_path / "metrics.csv"
    if rows is None:
        path.touch()
    else:
        write(path, rows)
    plot_training_curves(path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_file_without_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no column 'step'"):
        read_series(write(tmp_path / "metrics.csv", [{"train/loss": 1.0}]))
