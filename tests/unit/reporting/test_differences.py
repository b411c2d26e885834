"""Differences between the systems of a table, as the report shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_significance import DRAWS, annotations, run

from r3cnn.reporting.differences import ENOUGH_SEEDS, FEW_SEEDS, difference_tables
from r3cnn.reporting.paper import read_paper
from r3cnn.reporting.rows import Scored
from r3cnn.reporting.setting import setting_of

__all__ = ["annotations"]  # the fixture
PAPER = read_paper()


def scored(evaluated: Scored, loop: int | None = None) -> Scored:
    return Scored(evaluated.folder, evaluated.record, loop or evaluated.loop)


def test_rows_that_were_measured_are_compared_and_it_is_said_what_may_be_chance(annotations: Path) -> None:
    mask_rcnn = [scored(run(annotations, "mask_rcnn", [9], seed)) for seed in (0, 1)]
    naive = [run(annotations, "r3cnn_naive", [9, 1, 1], seed) for seed in (0, 1)]
    rows = {1: mask_rcnn, **{loop + 1: [scored(each, loop) for each in naive] for loop in (1, 2, 3)}}
    setting = setting_of(naive[0].record)
    (table,) = difference_tables(PAPER, "table2", setting, rows, DRAWS)
    assert [row[0].text for row in table.rows] == ["2 - 1", "2 - 4", "3 - 4"]
    worse = table.rows[1]
    assert [cell.text for cell in worse[1:4]] == ["R3-CNN (naive), Lt 3, Le 1", "R3-CNN (naive), Lt 3, Le 3", "2"]
    assert (worse[4].value or 0) < -5
    assert "not significant" not in worse[4].text
    assert "(seeds ± " in worse[4].text
    assert "not significant" in table.rows[2][4].text
    assert "95 % interval of 200 bootstrap resamples" in table.subtitle
    assert "not widened for the number of comparisons" in table.subtitle
    assert [len(row[-1].notes) for row in table.rows] == [1, 1, 1]
    assert table.notes == (FEW_SEEDS.format(enough=ENOUGH_SEEDS),)


def test_with_enough_seeds_the_interval_speaks_for_the_systems(annotations: Path) -> None:
    sides = {
        row: [scored(run(annotations, name, [shift], seed)) for seed in range(ENOUGH_SEEDS)]
        for row, name, shift in ((1, "mask_rcnn", 9), (4, "r3cnn_naive", 1))
    }
    (table,) = difference_tables(PAPER, "table1", setting_of(sides[1][0].record), sides, DRAWS)
    assert [row[3].text for row in table.rows] == ["5"]
    assert table.notes == ()


def test_a_comparison_that_cannot_be_made_says_why(annotations: Path) -> None:
    mask_rcnn, naive = run(annotations, "mask_rcnn", [9]), run(annotations, "r3cnn_naive", [1])
    (naive.folder / "detections.json").unlink()
    rows = {1: [scored(mask_rcnn)], 4: [scored(naive)]}
    (table,) = difference_tables(PAPER, "table1", setting_of(naive.record), rows, DRAWS)
    ((_, _, _, seeds, box, mask),) = table.rows
    assert (seeds.text, box.text, mask.text) == ("–", "not known", "not known")
    assert table.notes == (f"{naive.folder / 'detections.json'} is gone",)
    assert mask.notes == (0,)


def test_seeds_that_only_one_side_has_are_not_paired(annotations: Path) -> None:
    mask_rcnn, naive = run(annotations, "mask_rcnn", [9], seed=0), run(annotations, "r3cnn_naive", [1], seed=1)
    rows = {1: [scored(mask_rcnn)], 4: [scored(naive)]}
    (table,) = difference_tables(PAPER, "table1", setting_of(naive.record), rows, DRAWS)
    assert "no seed in common" in table.notes[0]


@pytest.mark.parametrize("rows", [(), (1,), (4,), (1, 6)])
def test_without_both_sides_of_any_comparison_there_is_no_table(rows: tuple[int, ...], annotations: Path) -> None:
    evaluated = run(annotations, "any", [1])
    measured = {row: [scored(evaluated)] for row in rows}
    setting = replace(setting_of(evaluated.record), scale="coco")
    assert difference_tables(PAPER, "table1", setting, measured, DRAWS) == []
