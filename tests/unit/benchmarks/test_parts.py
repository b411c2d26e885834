"""Sections: who pays for what, and that nothing of a step is lost or counted twice."""

from __future__ import annotations

import time

import pytest
import tiny

from r3cnn.benchmarks.harness import CPU, section
from r3cnn.benchmarks.networks import INFERENCE, TRAINING, Ours, Task
from r3cnn.benchmarks.parts import HEADS, split, watch
from r3cnn.benchmarks.workload import Case, draw_workload

CASE = Case("fp32", 2, (64, 96), 3)


@pytest.fixture
def side() -> Ours:
    workload = draw_workload(CASE, num_classes=tiny.CLASSES, seed=0, device=CPU)
    return Ours(tiny.model(tiny.schedule(), count=16), workload, seed=0, candidates=50)


@pytest.mark.parametrize(
    ("task", "names"),
    [(TRAINING, {"backward", "optimiser"}), (INFERENCE, {"pasting and RLE"})],
    ids=["training", "inference"],
)
def test_the_sections_of_a_step_share_all_of_its_time(side: Ours, task: Task, names: set[str]) -> None:
    watch(side)
    step, seconds = task.step(side), []

    def timed() -> float:
        start = time.perf_counter()
        outcome = step()
        seconds.append(time.perf_counter() - start)
        return outcome

    spent = split(timed)
    ours = {"normalisation", "backbone", "pyramid", "RPN", HEADS, "boxes of all loops", "masks of all loops", "rest"}
    assert spent.keys() == ours | names
    assert min(spent.values()) > 0
    inside = spent["boxes of all loops"] + spent["masks of all loops"]
    assert inside < spent[HEADS]
    assert sum(spent.values()) - inside == pytest.approx(seconds[0], rel=0.1)


def test_a_section_that_is_entered_twice_pays_for_both() -> None:
    def call() -> float:
        with section("rest"):
            time.sleep(0.1)
            with section(HEADS):
                time.sleep(0.2)
                for _ in range(2):
                    with section("boxes of all loops"):
                        time.sleep(0.2)
        return 0.0

    spent = split(call)
    assert [*spent] == ["rest", HEADS, "boxes of all loops"]
    assert all(own > 0.99 * slept for own, slept in zip(spent.values(), (0.1, 0.6, 0.4), strict=True))
