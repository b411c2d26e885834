from __future__ import annotations

import pytest

from r3cnn.training.position import position_in


def checkpoint(epochs_started: int, epochs_done: int, batches: int, *, is_last: bool = False) -> dict[str, object]:
    return {
        "loops": {
            "fit_loop": {
                "epoch_progress": {"current": {"started": epochs_started, "processed": epochs_done}},
                "epoch_loop.batch_progress": {"current": {"processed": batches}, "is_last_batch": is_last},
            }
        }
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (checkpoint(1, 0, 4), (0, 4)),
        (checkpoint(3, 2, 1), (2, 1)),
        (checkpoint(3, 2, 9, is_last=True), (3, 0)),
        (checkpoint(3, 3, 9, is_last=True), (3, 0)),
    ],
)
def test_training_goes_on_after_the_last_batch_that_was_learnt_from(
    content: dict[str, object], expected: tuple[int, int]
) -> None:
    assert position_in(content) == expected


def test_a_file_without_training_progress_says_so() -> None:
    with pytest.raises(ValueError, match="cannot be resumed"):
        position_in({"state_dict": {}})
