"""Sections: who pays for what, and that nothing of a step is lost or counted twice."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from r3cnn.benchmarks.cases import Case, Shape
from r3cnn.benchmarks.flops import counted_flops
from r3cnn.benchmarks.parts import Split, medians, peak_rows, share_rows, split_operations
from r3cnn.benchmarks.sections import Sections
from r3cnn.benchmarks.steps import imitate_training, our_inference, our_training_step, whole_backward
from r3cnn.benchmarks.watched import our_watched_inference, our_watched_training
from r3cnn.benchmarks.workload import Workload, draw_workload


class Ticks:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def batch() -> Workload:
    channel = (120.0,) * 3
    settings = {"batch_size": 2, "size": (64, 96), "objects": 3, "num_classes": tiny.CLASSES, "seed": 0}
    return draw_workload(**settings, mean=channel, std=channel, device=torch.device("cpu"))


CASE = Case("fp32", Shape(2, (64, 96), 3, tiny.CLASSES))


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
    sections.start()
    assert sections.spent == {}


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
    sections.watch_module(module, lambda: "forward")
    sections.watch_method(module, "other", lambda: "other")
    module(torch.zeros(1))
    assert module.other() == "said"
    assert sections.spent == {"forward": 3, "other": 4}


def test_the_sections_of_a_training_step_name_every_loop_and_hold_all_operations(batch: Workload) -> None:
    model = tiny.model(tiny.schedule(), count=16)
    total = counted_flops(our_training_step(model, batch, CASE, 0, whole_backward))
    sections = Sections(lambda: 0.0)
    spent = split_operations(our_watched_training(model, batch, CASE, 0, sections), sections)
    loops = {f"loop {loop}: {part}" for loop in (1, 2, 3) for part in ("boxes", "masks")}
    assert loops | {"normalisation", "backbone", "pyramid", "RPN", "backward", "optimiser", "rest"} <= spent.keys()
    assert sum(spent.values()) == pytest.approx(total, rel=0.02)  # another draw of the RoIs
    assert spent["backward"] > spent["backbone"] > 0
    assert spent["loop 1: boxes"] > 0


def test_the_sections_of_inference_hold_all_operations(batch: Workload) -> None:
    model = tiny.model(tiny.schedule())
    imitate_training(model, batch, candidates=50)
    total = counted_flops(our_inference(model, batch, CASE))
    sections = Sections(lambda: 0.0)
    spent = split_operations(our_watched_inference(model, batch, CASE, sections), sections)
    assert sum(spent.values()) == total
    assert {"loop 3: boxes", "masks", "pasting and RLE"} <= spent.keys()
    assert spent["masks"] > 0


def test_ratios_of_the_rows_are_the_shares() -> None:
    split = Split({"backbone": 3.0, "backward": 1.0}, {"backbone": 6e9, "backward": 0.0})
    assert [row.ratio for row in share_rows("step", split)] == [0.75, 0.25]
    (row,) = peak_rows("step", split, peak=8e9)
    assert (row.ours, row.peer, row.ratio, row.unit) == (2.0, 8.0, 0.25, "GFLOP/s")


def test_each_section_has_a_median_of_its_own() -> None:
    records = [{"a": 1.0, "b": 9.0}, {"a": 5.0, "b": 8.0}, {"a": 3.0}]
    assert medians(records) == {"a": 3.0, "b": 8.0}
