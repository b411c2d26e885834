from __future__ import annotations

import pytest

from r3cnn.schedule import LoopSchedule, eval_heads


def schedule(heads: list[int]) -> LoopSchedule:
    return LoopSchedule(
        heads=heads,
        iou_thresholds=[0.5] * len(heads),
        loss_weights=[1.0] * len(heads),
        eval_heads=heads,
        delta_stds=[[0.1, 0.1, 0.2, 0.2]] * len(set(heads)),
        interleaved=True,
        mask_feedback="off",
    )


@pytest.mark.parametrize(
    ("trained", "loops", "heads", "expected"),
    [
        ([0, 0, 0], None, None, [0, 0, 0]),
        ([0, 0, 0], 5, None, [0] * 5),
        ([0], 2, None, [0, 0]),
        ([0, 1, 2], 2, None, [0, 1]),
        ([0, 1, 2], None, [0, 1, 2, 2], [0, 1, 2, 2]),
        ([0, 1, 2], 4, [0, 1, 2, 2], [0, 1, 2, 2]),
    ],
)
def test_a_single_head_repeats_and_several_run_as_trained_or_as_told(
    trained: list[int], loops: int | None, heads: list[int] | None, expected: list[int]
) -> None:
    assert eval_heads(loops, heads, schedule(trained)) == expected


@pytest.mark.parametrize(
    ("loops", "heads", "message"),
    [
        (4, None, r"eval_heads=\[0, 1, 2, 2\]"),
        (2, [0], "contradicts"),
        (0, None, "whole number >= 1"),
        (True, None, "whole number >= 1"),
    ],
)
def test_what_is_not_clear_is_refused(loops: int, heads: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        eval_heads(loops, heads, schedule([0, 1, 2]))
