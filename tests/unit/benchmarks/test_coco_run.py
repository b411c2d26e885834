"""The model of a COCO run and the fits, against numbers worked out by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from r3cnn.benchmarks.coco_run import CocoRun, MeasuredStep, coco_rows, fastest, read_steps
from r3cnn.benchmarks.fits import exponent, slope

RUN = CocoRun(images=1000, epochs=12, gpus=(1, 8), efficiency=0.8)
STEP = MeasuredStep(
    "mask_rcnn", "fp32", batch_size=2, image_size=[800, 1344], seconds=0.3, peak_bytes=3 * 2**30, share_of_peak=0.4
)


def test_hours_are_steps_times_seconds_and_the_last_batch_of_an_epoch_is_a_whole_step() -> None:
    assert RUN.hours(2, 0.3, gpus=1) == pytest.approx(12 * 500 * 0.3 / 3600)
    assert RUN.hours(3, 0.3, gpus=1) == pytest.approx(12 * 334 * 0.3 / 3600)
    assert RUN.hours(2, 0.3, gpus=8) == pytest.approx(12 * 63 * 0.3 / 0.8 / 3600)


def test_the_paper_s_run_at_its_own_speed_takes_what_its_images_per_second_say() -> None:
    coco = CocoRun(images=117_266, epochs=12, gpus=(1,), efficiency=1.0)
    assert coco.hours(2, 2 / 60, gpus=1) == pytest.approx(117_266 * 12 / 60 / 3600, rel=1e-6)


def test_of_each_system_the_step_with_most_images_per_second_counts() -> None:
    slow, quick = STEP, replace(STEP, precision="bf16", batch_size=8, seconds=0.5)
    assert fastest([slow, quick]) == {"mask_rcnn": quick}
    assert fastest([quick, slow]) == {"mask_rcnn": quick}


def test_rows_and_details_tell_measured_extrapolated_and_assumed_apart() -> None:
    rows, about = coco_rows([STEP, replace(STEP, system="htc", seconds=0.6)], RUN, "a file")
    assert [row.ratio for row in rows] == pytest.approx([1.0, 2.0, 1.0, 2.0])
    assert all(row.unit == "h" and not row.accept and "extrapolated" in row.name for row in rows)
    assert about.keys() == {"source", "measured", "extrapolated_hours", "assumed"}
    assert about["measured"]["htc"]["images_per_second"] == pytest.approx(2 / 0.6)
    assert about["measured"]["htc"]["memory_gib"] == 3.0
    assert about["assumed"]["efficiency"] == 0.8
    assert about["extrapolated_hours"]["1 device(s)"]["mask_rcnn"] == pytest.approx(0.5)


def test_without_mask_rcnn_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="mask_rcnn was not measured"):
        coco_rows([replace(STEP, system="htc")], RUN, "a file")


def test_steps_are_read_from_what_bench_train_puts_out(tmp_path) -> None:
    entry = {**vars(STEP), "flops": 5}
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"rows": [], "machine": {"measured": {"train": {"systems": [entry]}}}}))
    assert read_steps(file) == [STEP]


@pytest.mark.parametrize("content", ["no json", "{}", '{"machine": {"measured": {"train": {"systems": [{"a": 1}]}}}}'])
def test_another_file_is_refused_by_name(tmp_path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"from=.*other\.json: what `r3cnn bench train format=json` puts out"):
        read_steps(file)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"gpus": (0,)}, {"efficiency": 0.0}, {"efficiency": 1.5}])
def test_a_run_of_nothing_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="coco_run needs numbers >= 1"):
        replace(RUN, **change)


def test_a_cost_that_grows_as_the_square_has_exponent_two() -> None:
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert exponent([1, 2, 4], [5, 5, 5]) == pytest.approx(0)


def test_a_further_loop_costs_the_slope() -> None:
    assert slope([1, 2, 3], [1.0, 1.25, 1.5]) == pytest.approx(0.25)
