"""Sections: who pays for what, and that nothing of a step is lost or counted twice."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from r3cnn.benchmarks.counting import counted
from r3cnn.benchmarks.harness import CPU
from r3cnn.benchmarks.networks import INFERENCE, TRAINING, Ours
from r3cnn.benchmarks.parts import Sections, medians, split_operations, watch
from r3cnn.benchmarks.workload import Case, draw_workload


class Ticks:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CASE = Case("fp32", 2, (64, 96), 3, tiny.CLASSES)


@pytest.fixture
def side() -> Ours:
    channel = (120.0,) * 3
    workload = draw_workload(CASE, mean=channel, std=channel, seed=0, device=CPU)
    return Ours(tiny.model(tiny.schedule(), count=16), workload, seed=0, candidates=50)


def test_a_section_pays_for_what_the_sections_inside_it_leave() -> None:
    clock = Ticks()
    sections = Sections(clock)
    with sections.section("outer"):
        clock.now += 1
        with sections.section("inner"):
            clock.now += 10
        clock.now += 100
    clock.now += 1000  # nobody's
    with sections.section("inner"):
        clock.now += 5
    assert sections.spent == {"outer": 101, "inner": 15}


def test_an_error_inside_closes_the_section() -> None:
    clock = Ticks()
    sections = Sections(clock)
    with pytest.raises(KeyError), sections.section("broken"):
        raise KeyError
    clock.now += 7
    assert sections.spent == {"broken": 0}


def test_modules_and_methods_pay_while_they_run() -> None:
    clock = Ticks()

    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            clock.now += 3
            return x

        def other(self) -> str:
            clock.now += 4
            return "said"

    module, sections = Slow(), Sections(clock)
    sections.watch(module, "forward", "forward")
    sections.watch(module, "other", lambda: "other")
    module(torch.zeros(1))
    assert module.other() == "said"
    assert sections.spent == {"forward": 3, "other": 4}


def test_the_sections_of_a_training_step_name_every_loop_and_hold_all_operations(side: Ours) -> None:
    total, _ = counted(TRAINING.step(side, CASE), CPU)
    sections = Sections(lambda: 0.0)
    watch(side, sections)
    spent = split_operations(TRAINING.step(side, CASE), sections)
    loops = {f"loop {loop}: {part}" for loop in (1, 2, 3) for part in ("boxes", "masks")}
    assert loops | {"normalisation", "backbone", "pyramid", "RPN", "backward", "optimiser", "rest"} <= spent.keys()
    assert sum(spent.values()) == pytest.approx(total, rel=0.02)  # another draw of the RoIs
    assert spent["backward"] > spent["backbone"] > 0
    assert spent["loop 1: boxes"] > 0


def test_the_sections_of_inference_hold_all_operations(side: Ours) -> None:
    total, _ = counted(INFERENCE.step(side, CASE), CPU)
    sections = Sections(lambda: 0.0)
    watch(side, sections)
    spent = split_operations(INFERENCE.step(side, CASE), sections)
    assert sum(spent.values()) == total
    assert {"loop 3: boxes", "masks", "pasting and RLE"} <= spent.keys()
    assert spent["masks"] > 0


def test_each_section_has_a_median_of_its_own() -> None:
    records = [{"a": 1.0, "b": 9.0}, {"a": 5.0, "b": 8.0}, {"a": 3.0}]
    assert medians(records) == {"a": 3.0, "b": 8.0}
