"""The loop schedule refuses what cannot run, and knows whose feature feeds whom."""

from __future__ import annotations

import pytest

from r3cnn.schedule import LoopSchedule

R3: dict[str, object] = {
    "heads": [0, 0, 0],
    "iou_thresholds": [0.5, 0.6, 0.7],
    "loss_weights": [1, 0.75, 0.5],
    "eval_heads": [0, 0, 0],
    "delta_stds": [[0.1, 0.1, 0.2, 0.2]],
    "interleaved": True,
    "mask_feedback": "released",
    "feedback_heads": [0],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iou_thresholds": [0.5, 0.6]}, "iou_thresholds has 2 entries, heads has 3: one per loop is needed"),
        ({"loss_weights": [1]}, "loss_weights has 1 entries, heads has 3"),
        ({"heads": []}, "heads is empty"),
        ({"eval_heads": []}, "eval_heads is empty"),
        ({"eval_heads": [0] * 10**5}, "eval_heads has 100000 entries: 100 loops are the most"),
        ({"iou_thresholds": [0.5, 0.6, 1.1]}, r"in \(0, 1\], got 1.1"),
        ({"iou_thresholds": [0.0, 0.6, 0.7]}, r"in \(0, 1\], got 0.0"),
        ({"loss_weights": [1, -1, 1]}, "got -1.0"),
        ({"heads": [0, 0, 2]}, "without a gap"),
        ({"heads": [0, 0, -1]}, "got -1"),
        ({"eval_heads": [0, 1]}, "eval_heads names head 1"),
        ({"delta_stds": [[0.1, 0.1, 0.2, 0.2]] * 2}, "delta_stds has 2 entries, there are 1 heads: one for all"),
        ({"delta_stds": [[0.1, 0.1, 0.2]]}, "four positive numbers"),
    ],
)
def test_impossible_schedules_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoopSchedule(**(R3 | change))


def test_released_feedback_is_absent_from_training_of_one_head() -> None:
    released = LoopSchedule(**R3)
    assert released.feedback_heads_before(2) == ()
    assert released.has_feedback


def test_trained_feedback_chains_the_loops_before_in_training() -> None:
    trained = LoopSchedule(**(R3 | {"mask_feedback": "trained"}))
    assert trained.feedback_heads_before(2) == (0, 0)


def test_released_feedback_of_a_cascade_chains_the_heads_before() -> None:
    three = {"heads": [0, 1, 2], "eval_heads": [0, 1, 2], "delta_stds": R3["delta_stds"] * 3, "feedback_heads": [1, 2]}
    assert LoopSchedule(**(R3 | three)).feedback_heads_before(2) == (0, 1)


def test_feedback_that_is_off_chains_nothing() -> None:
    off = LoopSchedule(**(R3 | {"mask_feedback": "off"}))
    assert off.feedback_heads_before(2) == ()
    assert not off.has_feedback


@pytest.mark.parametrize(
    ("heads", "eval_heads", "expected"),
    [
        ([0], [0], (0,)),
        ([0], [0, 0], (0,)),
        ([0, 0, 0], [0], (0,)),
        ([0, 0, 1], [0, 0, 1], (0, 1)),
        ([0, 1, 1], [0, 1, 1], (1,)),
        ([0, 1, 2], [0, 1, 2], (1, 2)),
    ],
)
def test_heads_that_run_after_the_first_loop_own_a_feedback_convolution(
    heads: list[int], eval_heads: list[int], expected: tuple[int, ...]
) -> None:
    loops = {"iou_thresholds": [0.5] * len(heads), "loss_weights": [1.0] * len(heads)}
    change = {"heads": heads, "eval_heads": eval_heads, "feedback_heads": None, **loops}
    assert LoopSchedule(**(R3 | change)).feedback_heads == expected


def test_one_row_of_deviations_serves_all_heads() -> None:
    three = LoopSchedule(**(R3 | {"heads": [0, 1, 2], "delta_stds": [[0.1, 0.1, 0.2, 0.2]]}))
    assert three.delta_stds == ((0.1, 0.1, 0.2, 0.2),) * 3
    assert three.num_heads == 3
