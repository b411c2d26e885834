"""What is swept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny

from r3cnn.benchmarks.harness import CPU, Turns
from r3cnn.benchmarks.networks import Bench, Speed, cost_rows
from r3cnn.benchmarks.scale import scale_rows, varied
from r3cnn.benchmarks.workload import Case

CASE = Case("fp32", 1, (64, 96), 3)
BENCH = Bench(
    build=lambda experiment, overrides: tiny.model(tiny.schedule(), count=16),
    device=CPU,
    cases=[CASE],
    candidates=50,
    repetitions=1,
    warmups=0,
    seed=0,
    own=(),
)


def test_a_sweep_changes_one_thing() -> None:
    assert varied(CASE, "image_size", (128, 96)) == (replace(CASE, image_size=(128, 96)), ())
    assert varied(CASE, "batch_size", 2) == (replace(CASE, batch_size=2), ())
    assert varied(CASE, "objects", 6) == (replace(CASE, objects=6), ())
    assert varied(CASE, "classes", 160) == (CASE, ("num_classes=160",))
    assert "rpn.train_proposals.per_image=32" in varied(CASE, "rois", 16)[1]
    assert varied(CASE, "loops", 3)[1][0] == "recursion.heads=[0, 0, 0]"


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        ({"batch_size": [1]}, "two different values at least are needed"),
        ({"batch_size": [1, 1]}, "two different values at least are needed"),
        ({"colour": [1, 2]}, "unknown sweep 'colour'"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused_by_name(sweeps: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scale_rows(BENCH, ["r3cnn_naive"], sweeps)


def test_an_empty_sweep_is_left_out() -> None:
    assert scale_rows(BENCH, ["r3cnn_naive"], {"batch_size": []}) == ([], [])


def test_time_stands_beside_operations() -> None:
    turns = Turns({"2": [3.0, 3.0], "1": [2.0, 1.0]}, {})
    ours, baseline = Speed("2", 3.0, 40, 6_000_000, 0.0), Speed("1", 1.5, 20, 2_000_000, 0.0)
    ratios, time, memory = cost_rows("step", turns, ours, baseline, 1.1)
    assert (ratios.ours, ratios.baseline, ratios.target) == (2.25, 2.0, 1.1)
    assert (time.ours, time.baseline, time.target) == (3.0, 1.5, None)
    assert (memory.ours, memory.baseline, memory.unit) == (6.0, 2.0, "MB")
