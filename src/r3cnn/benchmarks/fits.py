"""Straight lines through measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import linear_regression


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line."""
    return linear_regression(x, y).slope


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line through the logarithms: 1 where y grows as x, 2 as its square."""
    return slope([math.log(value) for value in x], [math.log(value) for value in y])
