from __future__ import annotations

import math
from types import SimpleNamespace

import lightning
import pytest
from lightning.pytorch.callbacks import Timer

from r3cnn.training import progress
from r3cnn.training.module import flat_ap, stable_seed, time_spent_in
from r3cnn.training.progress import Forecast, RunClock


def test_seeds_depend_on_every_number_and_its_place_and_nothing_else() -> None:
    numbers = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 11, 1, 0), (0, 1, 11, 0)]
    seeds = [stable_seed(*each) for each in numbers]
    assert len(set(seeds)) == len(numbers)
    assert stable_seed(0, 1, 2, 3) == 14585358757307395
    assert all(0 <= seed < 2**56 for seed in seeds)


def test_metrics_become_one_flat_dict_with_undefined_ones_as_nan() -> None:
    kinds = {"box": {"ap": 0.5, "ap_large": None}, "mask": {"ap": 0.25}}
    flat = flat_ap({**kinds, "loops": {"1": kinds}, "per_class": {"cat": {"box": 0.1, "mask": None}}})
    assert flat["box_ap"] == flat["loop1/box_ap"] == 0.5
    assert flat["mask_ap"] == 0.25
    assert math.isnan(flat["loop1/box_ap_large"])
    assert flat["class/cat/box_ap"] == 0.1
    assert math.isnan(flat["class/cat/mask_ap"])


def test_the_time_left_follows_from_the_steps_of_this_run_alone() -> None:
    clock = RunClock(start=100, total=200)
    clock._began -= 50.0
    assert clock.describe(150).endswith("ETA 0:00:50")
    assert RunClock(0, math.inf).describe(3).startswith("3  ")


def test_the_forecast_is_made_after_the_first_steps_and_again_with_the_time_of_a_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    forecast, asked = Forecast(start=100, total=1100), []
    for step in range(101, 121):
        now += 50.0 if step == 101 else 2.0  # the first step is slower
        if forecast.note_step(step):
            asked.append((step, forecast.describe(step, steps_between=500)))
        if step == 105:
            forecast.start_validation()
            now += 1.0
            assert not forecast.end_validation()  # the speed of steps is not known yet
        forecast.note_step(step)  # of a batch whose gradients are accumulated
    assert asked == [(111, "about 0.55 h to the end: 2 s per step (989 left), 1 s per validation (2 left)")]
    forecast = Forecast(start=0, total=8)
    said = []
    for step in range(1, 9):
        now += 1.0
        said += [step] if forecast.note_step(step) else []
    assert said == [4]
    assert forecast.describe(4, 2) == "about 0.00 h to the end: 1 s per step (4 left), without validations (2 left)"
    forecast.start_validation()
    now += 1800.0
    assert forecast.end_validation()
    assert (
        forecast.describe(4, 2) == "about 1.00 h to the end: 1 s per step (4 left), 1.8e+03 s per validation (2 left)"
    )
    assert Forecast(0, math.inf).describe(3, 2).endswith("s per step")


@pytest.mark.parametrize(("elapsed", "expected"), [(0.0, 0.0), (15.0, 0.25), (600.0, 1.0)])
def test_the_part_of_the_time_that_is_over_goes_on_counting_after_a_resume(elapsed: float, expected: float) -> None:
    trainer = lightning.Trainer(max_time="00:00:01:00", accelerator="cpu", logger=False, enable_checkpointing=False)
    timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))
    timer.load_state_dict({"time_elapsed": {"train": elapsed}})
    spent = time_spent_in(trainer)
    assert spent is not None
    assert spent() == pytest.approx(expected)


def test_without_a_limit_of_time_there_is_no_part_of_it() -> None:
    assert time_spent_in(lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)) is None
