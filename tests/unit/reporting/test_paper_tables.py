"""Runs of the ledger beside the published numbers."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from record_samples import TRAIN_2017, VAL_2017, config, make_record, write_records

from r3cnn.reporting.paper import read_paper
from r3cnn.reporting.paper_tables import measured_rows, paper_tables, spread
from r3cnn.reporting.records import DataFacts, Record
from r3cnn.reporting.rows import by_setting, runs_of
from r3cnn.reporting.tables import Cell, Column, Table, mark
from r3cnn.run_files import RESULT

PAPER = read_paper()
SHAPES = DataFacts("/cache/shapes/annotations/instances_val.json", "d" * 128, 64, 300)


def table(source: str, records: dict[Path, Record]) -> Table:
    ((setting, runs),) = by_setting(records).items()
    return paper_tables(PAPER, source, setting, runs)[0]


def column(found: Table, heading: str, kind: str) -> list[Cell]:
    (position,) = [
        number
        for number, each in enumerate(found.columns)
        if (each.group or each.heading, each.kind) == (heading, kind)
    ]
    return [row[position] for row in found.rows]


def texts(found: Table, heading: str, kind: str) -> list[str]:
    return [cell.text for cell in column(found, heading, kind)]


def test_table_1_has_the_papers_columns_in_its_order_and_each_quantity_says_whose_it_is(tmp_path: Path) -> None:
    found = table("table1", write_records(tmp_path, make_record()))
    headings = list(dict.fromkeys(each.group or each.heading for each in found.columns))
    names = ["#", "Model", "seeds", "# Params", "TS", "Lt", "H", "BAP", "SAP"]
    assert headings == [*names, "Speed (images/s)", "Mem. usage (GiB)", "Model size (MiB)"]
    kinds = [each.kind for each in found.columns if each.group == "BAP"]
    assert kinds == ["measured", "published", "difference"]
    assert [each.heading for each in found.columns if each.group == "BAP"] == ["ours", "paper", "difference"]


def test_a_row_shows_ours_the_papers_and_the_difference(tmp_path: Path) -> None:
    found = table("table1", write_records(tmp_path, make_record()))
    values = {
        (each.group, each.kind): cell.text
        for each, cell in zip(found.columns, found.rows[3], strict=True)
        if each.group
    }
    assert values == {
        ("# Params", "measured"): "43,912 K",
        ("# Params", "published"): "43,912 K",
        ("# Params", "difference"): "0 K",
        ("BAP", "measured"): "41.0",
        ("BAP", "published"): "40.9",
        ("BAP", "difference"): "+0.1",
        ("SAP", "measured"): "37.0",
        ("SAP", "published"): "36.8",
        ("SAP", "difference"): "+0.2",
        ("Speed (images/s)", "measured"): "5.5",
        ("Speed (images/s)", "published"): "5.5",
        ("Mem. usage (GiB)", "measured"): "6.0",
        ("Mem. usage (GiB)", "published"): "5.9",
        ("Model size (MiB)", "measured"): "336",
        ("Model size (MiB)", "published"): "337",
        ("Model size (MiB)", "difference"): "-1",
    }


def test_rows_that_nothing_measures_say_so_and_keep_the_published_number(tmp_path: Path) -> None:
    found = table("table1", write_records(tmp_path, make_record()))
    assert texts(found, "seeds", "measured") == ["not run", "not run", "not run", "1", "not run", "not run"]
    assert texts(found, "BAP", "measured")[0] == "–"
    assert texts(found, "BAP", "published")[0] == "38.2"
    assert texts(found, "BAP", "difference")[0] == "–"


def test_several_seeds_give_mean_and_standard_deviation(tmp_path: Path) -> None:
    runs = [make_record(aps=(ap,), seed=seed) for seed, ap in enumerate((40.0, 41.0, 42.0))]
    found = table("table1", write_records(tmp_path, *(replace(run, config=config(1)) for run in runs)))
    assert texts(found, "seeds", "measured")[3] == "3"
    assert texts(found, "BAP", "measured")[3] == "41.0 ± 1.0"
    assert texts(found, "BAP", "difference")[3] == "+0.1"
    assert texts(found, "# Params", "measured")[3] == "43,912 K"


def test_a_seed_counts_once_by_its_most_direct_experiment_and_its_newest_run(tmp_path: Path) -> None:
    five = make_record("r3cnn_naive_5_eval_loops", (37.0, 40.0, 39.0, 39.0, 39.0))
    records = write_records(tmp_path, five, make_record(aps=(1.0, 1.0, 1.0)), make_record(aps=(2.0, 2.0, 2.0)))
    for age, folder in enumerate(records):
        os.utime(folder / RESULT, (1000 - age, 1000 - age))
    naive, loops = PAPER.table1[3], PAPER.table2[3]
    assert [run.ap("box", "ap") for run in runs_of(naive, records)] == [1.0]
    assert [run.ap("box", "ap") for run in runs_of(loops, records)] == [39.0]


def test_table_2_shows_every_evaluation_loop_of_one_run(tmp_path: Path) -> None:
    aps = (37.9, 40.5, 40.9, 41.0, 41.1)
    found = table("table2", write_records(tmp_path, make_record("r3cnn_naive_5_eval_loops", aps)))
    assert texts(found, "BAP", "measured") == ["–", "37.9", "40.5", "40.9", "41.0", "41.1"]
    assert texts(found, "Le", "name") == ["1", "1", "2", "3", "4", "5"]


def test_more_evaluation_loops_than_trained_count_for_tables_1_and_3_only_up_to_the_trained_ones(
    tmp_path: Path,
) -> None:
    records = write_records(tmp_path, make_record("r3cnn_naive_5_eval_loops", (1.0, 2.0, 3.0, 4.0, 5.0)))
    assert texts(table("table1", records), "BAP", "measured")[3] == "3.0"
    assert texts(table("table3", records), "BAP", "measured")[3] == "3.0"
    assert texts(table("table1", records), "Speed (images/s)", "measured")[3] == "–"  # that of five loops


def test_table_4_comes_as_boxes_and_masks_with_all_six_precisions(tmp_path: Path) -> None:
    records = write_records(tmp_path, make_record("htc_dcn", (44.0,), trained=1))
    ((setting, runs),) = by_setting(records).items()
    boxes, masks = paper_tables(PAPER, "table4", setting, runs)
    assert texts(boxes, "APm", "measured")[9] == "44.0"
    assert texts(masks, "AP75", "measured")[9] == "40.0"
    assert texts(boxes, "APl", "measured")[9] == "–"  # no large object
    assert texts(boxes, "APl", "published")[9] == "60.2"
    assert texts(boxes, "APl", "difference")[9] == "–"
    assert boxes.name != masks.name


@pytest.mark.parametrize(
    ("record", "reasons"),
    [
        (make_record(scale="demo", val=SHAPES), "scale, images scored"),
        (make_record(overrides=("trainer.max_epochs=1",)), "values set by hand"),
        (
            make_record(overrides=("+data.val.limit=500",), val=replace(VAL_2017, images=500)),
            "values set by hand, images scored",
        ),
        (make_record(val=SHAPES), "images scored"),
        (make_record(train=replace(TRAIN_2017, images=11_000)), "training images"),
        (make_record(train=replace(TRAIN_2017, file="/data/coco/annotations/ten_percent.json")), "training images"),
        (replace(make_record(), config=config(lr=0.01)), "learning rate"),
    ],
    ids=["scale", "override", "fewer images", "other data", "fewer training images", "other training data", "rate"],
)
def test_no_difference_is_shown_where_the_setting_is_not_the_papers(
    record: Record, reasons: str, tmp_path: Path
) -> None:
    found = table("table3", write_records(tmp_path, record))
    assert {each.kind for each in found.columns} == {"name", "measured", "published"}
    assert f"Not the paper's setting ({reasons}), so the columns cannot be compared" in found.subtitle
    assert "COCO val2017" in found.subtitle


def test_at_the_papers_setting_nothing_is_said_to_be_incomparable(tmp_path: Path) -> None:
    found = table("table3", write_records(tmp_path, make_record(overrides=("data.root=/data/coco", "launcher=ddp"))))
    assert found.subtitle.startswith(
        "ours: scale coco, trained with 117266 images of instances_train2017.json, 16 per step, "
        "scored on 5000 images of instances_val2017.json. The published numbers have no spread"
    )
    assert "images per step" not in found.subtitle


def test_a_scaled_learning_rate_may_be_compared_and_the_table_says_what_it_was_scaled_to(tmp_path: Path) -> None:
    found = table("table3", write_records(tmp_path, replace(make_record(), config=config(batch_size=2))))
    assert "difference" in {each.kind for each in found.columns}
    assert "Ours took 2 images per step with the learning rate scaled to them, the paper 16" in found.subtitle


def test_seeds_of_another_configuration_are_left_out_and_named(tmp_path: Path) -> None:
    old = [make_record(aps=(1.0, 1.0, 1.0), seed=seed) for seed in (1, 2)]
    changed = {**config(), "rois_per_image": 256}
    new = [replace(make_record(aps=(ap, ap, ap), seed=seed), config=changed) for seed, ap in ((2, 40.0), (3, 42.0))]
    records = write_records(tmp_path, *old, *new)
    for age, folder in enumerate(records):
        os.utime(folder / RESULT, (1000 + age, 1000 + age))
    found = table("table1", records)
    assert texts(found, "BAP", "measured")[3] == "41.0 ± 1.4"
    seeds = column(found, "seeds", "measured")[3]
    assert (seeds.text, [found.notes[number] for number in seeds.notes]) == (
        "2",
        ["Runs of another configuration than the newest are left out: r3cnn_naive-0, r3cnn_naive-1."],
    )


def test_runs_of_different_settings_stand_in_different_tables(tmp_path: Path) -> None:
    demo = make_record(scale="demo", val=SHAPES)
    records = write_records(tmp_path, demo, replace(demo, overrides=("trainer.max_steps=20",)), make_record(), demo)
    settings = by_setting(records)
    assert [len(runs) for runs in settings.values()] == [1, 2, 1]
    assert [setting.scale for setting in settings] == ["coco", "demo", "demo"]
    names = {paper_tables(PAPER, "table1", setting, runs)[0].name for setting, runs in settings.items()}
    assert len(names) == 3


def test_evaluations_with_too_few_loops_and_other_experiments_measure_nothing(tmp_path: Path) -> None:
    short = make_record(aps=(37.0, 40.0))
    records = write_records(tmp_path, short, make_record("mask_rcnn_matched", (38.0,), trained=1))
    assert measured_rows(PAPER, "table1", records) == {}
    assert [*measured_rows(PAPER, "table2", records)] == [2, 3]


def test_notes_stand_at_the_published_numbers_and_at_what_they_speak_of(tmp_path: Path) -> None:
    found = table("table1", write_records(tmp_path, make_record()))
    (two_results,) = [number for number, text in enumerate(found.notes) if "two results" in text]
    marked = [number for number, cell in enumerate(column(found, "BAP", "published")) if two_results in cell.notes]
    assert marked == [0]
    assert not any(cell.notes for cell in column(found, "BAP", "measured"))
    (size,) = {each.notes for each in found.columns if each.group == "Model size (MiB)"}
    assert "MiB of a training checkpoint" in found.notes[size[0]]
    assert any("ours cpu (ranks: 1), the paper's V100" in text for text in found.notes)


def test_without_any_run_the_published_numbers_stand_alone() -> None:
    (found,) = paper_tables(PAPER, "table2", None, {})
    assert set(texts(found, "seeds", "measured")) == {"not run"}
    assert found.subtitle == "ours: not run"
    assert texts(found, "BAP", "published")[5] == "40.9"


def test_a_spread_needs_two_different_values() -> None:
    def show(value: float) -> str:
        return f"{value:.2f}"

    assert spread([], show) == Cell("–")
    assert spread([1.5], show) == Cell("1.50", 1.5)
    assert spread([1.5, 1.5], show).text == "1.50"
    assert spread([1.0, 3.0], show).text == "2.00 ± 1.41"


def test_a_table_with_a_row_too_short_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="odd has a row of 1 cells and 2 columns"):
        Table("odd", "", "", (Column("a", "name"), Column("b", "measured")), ((Cell("x"),),))


def test_marks_go_on_after_z() -> None:
    assert [mark(number) for number in (0, 25, 26, 52)] == ["a", "z", "aa", "ba"]
