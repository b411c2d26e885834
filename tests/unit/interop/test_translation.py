"""How weights are compared with a network."""

from __future__ import annotations

import pytest
import torch

from r3cnn.interop.report import Report
from r3cnn.interop.translation import check_finite, compare, shapes_of, shortened

NETWORK = {"a.weight": (2, 3), "a.bias": (2,), "norm.num_batches_tracked": ()}


def test_equal_shapes_fit_and_counters_may_be_missing() -> None:
    fit = compare({"a.weight": (2, 3), "a.bias": (2,)}, NETWORK)
    assert fit.distance == 0
    assert fit.lines() == []


def test_every_difference_is_named_by_the_key_that_the_user_knows() -> None:
    fit = compare({"a.weight": (4, 3), "b": (1,)}, NETWORK)
    assert fit.distance == 3
    lines = fit.lines({"a.weight": "their.a.weight", "b": "their.b"})
    assert lines == [
        "1 tensors that the network needs and the weights lack: a.bias",
        "1 tensors that the weights have and the network does not: their.b",
        "1 tensors of another shape: their.a.weight [4, 3] instead of [2, 3]",
    ]


def test_long_lists_are_cut_and_say_so() -> None:
    assert shortened([str(number) for number in range(9)], shown=3) == "0, 1, 2 and 6 more"
    assert shortened(["a"]) == "a"


def test_shapes_are_plain_tuples() -> None:
    assert shapes_of({"a": torch.zeros(2, 3), "b": torch.tensor(1)}) == {"a": (2, 3), "b": ()}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_named(value: float) -> None:
    with pytest.raises(ValueError, match="1 tensors hold NaN or infinity: bad"):
        check_finite({"good": torch.zeros(2), "count": torch.tensor(3), "bad": torch.tensor([0.0, value])})


def test_a_report_counts_per_reason() -> None:
    report = Report(
        source="a",
        output="b",
        layout="c",
        network="d",
        used={"x": "y"},
        ignored={"k1": "old", "k2": "old", "k3": "strange"},
        unfilled={"z": "new"},
        classes=("cat",),
        category_ids=(1,),
        preprocessing={},
    )
    assert report.reasons() == [
        ("not used", "old", 2, "k1"),
        ("not used", "strange", 1, "k3"),
        ("not filled", "new", 1, "z"),
    ]
    assert report.to_dict()["filled"] == ["y"]
