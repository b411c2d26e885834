"""Ranges of numbers that constructors accept."""

from __future__ import annotations

import math
from collections.abc import Iterable


def check_range(interval: str, **values: float | Iterable[float] | None) -> None:
    """Refuses numbers outside an interval; NaN lies in none, and infinity only in a closed end.

    Args:
        interval: Such as ``(0, 1]`` or ``[1, inf)``.
        values: Numbers by the name that they have for the user; of a sequence, which must not be empty, every entry
            counts. None is not checked.

    Raises:
        ValueError: With the name and the interval.
    """
    least, most = map(float, interval[1:-1].split(","))
    for name, value in values.items():
        numbers = [*value] if isinstance(value, Iterable) else [] if value is None else [value]
        if isinstance(value, Iterable) and not numbers:
            raise ValueError(f"{name} is empty: numbers in {interval} are needed")
        for number in numbers:
            above = number > least or (number == least and interval[0] == "[")
            below = number < most or (number == most and interval[-1] == "]")
            if not (above and below) or math.isnan(number):
                raise ValueError(f"{name} must be in {interval}, got {number}")
