from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from r3cnn.training.optim import MultiStepSchedule, OptimizerSettings

STEPS_PER_EPOCH = 7330


def schedule(**changes: object) -> MultiStepSchedule:
    defaults = {
        "milestones": [8, 11],
        "unit": "epoch",
        "factor": 0.1,
        "warmup_steps": 500,
        "warmup_start": 0.001,
        "warmup_share": 0.1,
    }
    return MultiStepSchedule(**(defaults | changes))


def test_torch_applies_the_multiplier_before_the_first_step() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    scheduler = LambdaLR(optimizer, schedule().multiplier(STEPS_PER_EPOCH, 12 * STEPS_PER_EPOCH))
    rates = [optimizer.param_groups[0]["lr"]]
    optimizer.step()
    scheduler.step()
    rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.00002, 0.00005996], rel=1e-9)


def test_the_warm_up_of_a_short_run_takes_a_tenth_of_it() -> None:
    at = schedule(milestones=[1000], unit="step").multiplier(10, 200)
    assert at(0) == pytest.approx(0.001)
    assert at(10) == pytest.approx(1 - 0.5 * 0.999)
    assert at(19) < 1
    assert at(20) == 1


def test_milestones_in_fractions_and_in_steps_need_no_epochs() -> None:
    by_fraction = schedule(milestones=[0.5, 0.9], unit="fraction", warmup_steps=0).multiplier(10**6, 100)
    by_step = schedule(milestones=[50, 90], unit="step", warmup_steps=0).multiplier(10**6, 100)
    rates = [1.0] * 50 + [0.1] * 40 + [0.01] * 10
    assert [by_fraction(step) for step in range(100)] == pytest.approx(rates)
    assert [by_step(step) for step in range(100)] == pytest.approx(rates)


def test_a_run_without_an_end_warms_up_fully_and_cannot_use_fractions() -> None:
    at = schedule().multiplier(100, math.inf)
    assert at(499) < at(500) == 1
    with pytest.raises(ValueError, match="unit=fraction needs"):
        schedule(milestones=[0.5], unit="fraction").multiplier(100, math.inf)


@pytest.mark.parametrize("total_steps", [math.inf, 10**6])
def test_the_warm_up_of_a_run_limited_by_time_ends_after_a_tenth_of_it(total_steps: float) -> None:
    clock = iter([0.0, 0.02, 0.05, 0.1, 0.5])
    at = schedule(warmup_start=0.2).multiplier(10**5, total_steps, lambda: next(clock))
    assert [at(step) for step in range(5)] == pytest.approx([0.2, 0.36, 0.6, 1.0, 1.0])


def test_a_fast_run_limited_by_time_warms_up_by_its_steps_and_then_ignores_the_clock() -> None:
    at = schedule(warmup_steps=4, warmup_start=0.2).multiplier(100, math.inf, lambda: 0.0)
    assert [at(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert schedule(warmup_steps=4).multiplier(100, math.inf, lambda: math.nan)(4) == 1
    assert schedule(warmup_share=0.0).multiplier(100, math.inf)(0) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"milestones": [11, 8]}, "ascending"),
        ({"unit": "fraction", "milestones": [8]}, r"in \[0, 1\]"),
        ({"factor": 0.0}, "factor must be in"),
        ({"warmup_start": 2.0}, "warmup_start must be in"),
        ({"warmup_steps": -1}, "warmup_steps must be"),
    ],
)
def test_a_wrong_schedule_is_refused_by_name(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(**changes)


def test_the_rate_is_scaled_linearly_to_the_images_of_a_step() -> None:
    settings = OptimizerSettings(torch.optim.SGD, lr=0.02, base_images=16)
    assert settings.scaled_lr(16) == 0.02
    assert settings.scaled_lr(4) == pytest.approx(0.005)


def test_only_trainable_parameters_are_optimized() -> None:
    layer = torch.nn.Linear(2, 3)
    layer.bias.requires_grad_(False)
    optimizer = OptimizerSettings(torch.optim.SGD, lr=0.02, base_images=16).build(layer.parameters(), 8)
    assert [parameter.shape for parameter in optimizer.param_groups[0]["params"]] == [(3, 2)]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize(("lr", "base"), [(0.0, 16), (math.nan, 16), (0.02, 0)])
def test_a_rate_or_batch_that_is_not_positive_is_refused(lr: float, base: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        OptimizerSettings(torch.optim.SGD, lr=lr, base_images=base)


def test_milestones_in_epochs_stay_there_when_a_run_goes_on_with_another_batch() -> None:
    at = schedule(milestones=[2, 3], warmup_steps=0).multiplier(10, 40, steps_ahead=-5)  # 15 steps for two epochs
    assert [at(step) for step in (14, 15, 24, 25)] == pytest.approx([1, 0.1, 0.1, 0.01])
