"""Comparisons that several tests make."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
import torch
from recordings import Recording
from torch import Tensor

_FORM = re.compile(r"(.*?)_?(?:(sample|first|top)(\d*))?")


def assert_close(actual: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    torch.testing.assert_close(
        actual, expected, atol=tolerance, rtol=0, check_dtype=False, msg=lambda found: f"{what}: {found}"
    )


def assert_recorded(recording: Recording, prefix: str, ours: Mapping[str, tuple[Tensor, float]]) -> None:
    """Every array recorded under a prefix equals ours of that name, which is cut or sampled as the name's end says.

    Args:
        recording: Run of a network.
        prefix: Beginning of the keys.
        ours: Whole tensor and tolerance by the rest of the key, without the end that says how it was cut.
    """
    for key in recording.arrays:
        if key.startswith(prefix):
            name, form, count = _FORM.fullmatch(key.removeprefix(prefix)).groups()
            assert name in ours, f"{recording.name}: nothing to compare {key} with"
            values, tolerance = ours[name]
            if form == "sample":
                values = recording.sampled(values)
            elif form:
                values = values[: int(count)]
            assert_close(values.detach(), recording.tensor(key), tolerance, f"{recording.name}: {key}")


def assert_statistics(values: Tensor, recorded: dict, tolerance: float, what: str) -> None:
    """Shape, mean, standard deviation and largest magnitude of a whole tensor; none moves by more than its entries."""
    values = values.detach().double()
    assert list(values.shape) == recorded["shape"], what
    assert recorded.keys() <= {"shape", "mean", "std", "absmax", "per_roi_sum_first20"}, what
    if values.numel() == 0:
        return
    found = {"mean": values.mean(), "std": values.std(correction=0), "absmax": values.abs().max()}
    for name, value in found.items():
        assert float(value) == pytest.approx(recorded[name], abs=tolerance), f"{what}: {name}"
