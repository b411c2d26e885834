import itertools
import json
import operator
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest

from r3cnn.benchmarks.harness import Turns, compare, run_alone, take_turns
from r3cnn.cli.bench import print_table

AMOUNT = 200 * 2**20
USE = partial(np.ones, AMOUNT, dtype=np.uint8)  # takes it and gives it back


def test_the_calls_take_turns_and_warm_ups_come_first() -> None:
    order: list[str] = []

    def call(name: str) -> float:
        order.append(name)
        return float(len(order))

    calls = {name: lambda name=name: call(name) for name in "ab"}
    turns = take_turns(calls, repetitions=2, warmups=1, clock=partial(next, itertools.count()))
    assert order == ["a", "b"] * 3
    assert turns == Turns({"a": [1, 1], "b": [1, 1]}, {"a": 5.0, "b": 6.0})


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds_and_has_a_spread(capsys) -> None:
    turns = Turns({"ours": [1.0, 3.0, 10.0, 4.0, 5.0], "theirs": [2.0, 6.0, 10.0, 10.0, 10.0]}, {})
    row = turns.row("step", "ours", "theirs", 1.0, per_call=2)
    assert asdict(row) == {
        "name": "step",
        "ours": 2.0,  # median 4 of two images
        "baseline": 5.0,
        "target": 1.0,
        "unit": "s",
        "spread": pytest.approx(0.0),  # quartiles of 0.4, 0.5, 0.5, 0.5 and 1
        "ratio": 0.5,
    }
    wide = Turns({"ours": [1.0, 2.0], "theirs": [1.0, 1.0]}, {}).row("step", "ours", "theirs")
    assert (wide.ratio, wide.spread) == (1.5, pytest.approx(1 / 3))
    print_table([row, wide], {"device": "[cpu]"})
    printed = capsys.readouterr().out
    assert "1 ratios spread by more than 10%" in printed
    assert "device: [cpu]" in printed


def test_one_round_has_no_spread() -> None:
    row = Turns({"ours": [3.0], "theirs": [2.0]}, {}).row("step", "ours", "theirs")
    assert (row.ratio, row.spread) == (1.5, 0.0)


def test_a_comparison_with_nothing_has_no_ratio(capsys) -> None:
    row = compare("growth", 1.5, 0.0, 1.0, "MB")
    assert row.ratio is None
    assert json.loads(json.dumps(asdict(row), allow_nan=False))["ratio"] is None
    print_table([row], {})
    assert "0.000 MB" in capsys.readouterr().out


def test_memory_that_a_call_uses_and_gives_back_is_noticed_whatever_was_used_before() -> None:
    larger = np.ones(2 * AMOUNT, dtype=np.uint8)
    del larger
    assert 0.9 * AMOUNT < run_alone(USE)[1] < 1.1 * AMOUNT


def test_a_larger_call_before_does_not_hide_a_smaller_one() -> None:
    larger = partial(np.ones, 2 * AMOUNT, dtype=np.uint8)
    assert 0.9 * AMOUNT < run_alone(USE, warm_up=larger)[1] < 1.1 * AMOUNT


def test_a_call_that_needs_nothing_uses_next_to_nothing() -> None:
    seconds, extra_bytes = run_alone(int)
    assert extra_bytes < 0.05 * AMOUNT
    assert 0 <= seconds < 1


def test_an_error_of_a_call_in_another_process_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        run_alone(partial(operator.truediv, 1, 0))
