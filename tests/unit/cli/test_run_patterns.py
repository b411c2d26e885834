"""Runs whose folders end with a hash are named by a pattern."""

from __future__ import annotations

from pathlib import Path

import pytest

from r3cnn.cli.analyze_rois import found_folders

FILE = "roi_statistics.json"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for name in ("naive-b2", "naive-a1", "naive_decreasing-c3", "naive-unfinished"):
        (tmp_path / name).mkdir()
    for name in ("naive-b2", "naive-a1", "naive_decreasing-c3"):
        (tmp_path / name / FILE).touch()
    return tmp_path


def test_a_pattern_stands_for_the_finished_runs_that_fit_it_in_the_order_of_their_names(sweep: Path) -> None:
    given = [f"{sweep}/naive_decreasing-*", f"{sweep}/naive-*"]
    names = [Path(folder).name for folder in found_folders(given, FILE)]
    assert names == ["naive_decreasing-c3", "naive-a1", "naive-b2"]


def test_a_folder_named_in_full_stays_so_that_what_it_lacks_is_told(sweep: Path) -> None:
    assert found_folders([f"{sweep}/naive-unfinished"], FILE) == [f"{sweep}/naive-unfinished"]


def test_a_pattern_that_nothing_fits_is_an_error(sweep: Path) -> None:
    with pytest.raises(ValueError, match=r"mask-\*: no folder of that name has roi_statistics.json"):
        found_folders([f"{sweep}/mask-*"], FILE)
