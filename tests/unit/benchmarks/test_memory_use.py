import operator
from functools import partial

import numpy as np
import pytest

from r3cnn.benchmarks.memory_use import extra_bytes

AMOUNT = 200 * 2**20
USE = partial(np.ones, AMOUNT, dtype=np.uint8)  # takes it and gives it back


def test_memory_that_a_call_uses_and_gives_back_is_noticed() -> None:
    assert 0.9 * AMOUNT < extra_bytes(USE) < 1.1 * AMOUNT


def test_what_this_process_used_before_changes_nothing() -> None:
    larger = np.ones(2 * AMOUNT, dtype=np.uint8)
    del larger
    assert 0.9 * AMOUNT < extra_bytes(USE) < 1.1 * AMOUNT


def test_a_larger_call_before_does_not_hide_a_smaller_one() -> None:
    larger = partial(np.ones, 2 * AMOUNT, dtype=np.uint8)
    assert 0.9 * AMOUNT < extra_bytes(USE, warm_up=larger) < 1.1 * AMOUNT


def test_a_call_that_needs_nothing_uses_next_to_nothing() -> None:
    assert extra_bytes(int) < 0.05 * AMOUNT


def test_an_error_of_the_call_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        extra_bytes(partial(operator.truediv, 1, 0))
