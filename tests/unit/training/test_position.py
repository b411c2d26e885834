from __future__ import annotations

import pytest

from r3cnn.training.position import move_counters, position_in, reopen_epoch


def checkpoint(epochs_started: int, epochs_done: int, batches: int, *, is_last: bool = False) -> dict[str, object]:
    return {
        "loops": {
            "fit_loop": {
                "epoch_progress": {
                    "current": {"started": epochs_started, "processed": epochs_done, "completed": epochs_done},
                    "total": {
                        "started": epochs_started + 2,
                        "processed": epochs_done + 2,
                        "completed": epochs_done + 2,
                    },
                },
                "epoch_loop.batch_progress": {
                    "current": {"ready": batches, "processed": batches, "completed": batches - 1},
                    "total": {"ready": batches + 20, "processed": batches + 20, "completed": batches + 19},
                    "is_last_batch": is_last,
                },
            }
        }
    }


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (checkpoint(1, 0, 4), (0, 4)),
        (checkpoint(3, 2, 1), (2, 1)),
        (checkpoint(3, 2, 9, is_last=True), (2, 9)),
        (checkpoint(3, 3, 9, is_last=True), (3, 0)),
    ],
)
def test_training_goes_on_after_the_last_batch_that_was_learnt_from(
    content: dict[str, object], expected: tuple[int, int]
) -> None:
    assert position_in(content) == expected


def test_all_counters_of_batches_are_moved_together() -> None:
    content = checkpoint(1, 0, 8)
    move_counters(content, 6)
    progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert progress["current"] == {"ready": 6, "processed": 6, "completed": 6}
    assert progress["total"] == {"ready": 26, "processed": 26, "completed": 26}


def test_a_file_without_training_progress_says_so() -> None:
    with pytest.raises(ValueError, match="cannot be resumed"):
        position_in({"state_dict": {}})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (checkpoint(3, 3, 5), checkpoint(3, 2, 5)),  # ended by its steps, which Lightning counts as the epoch's end
        (checkpoint(3, 2, 5), checkpoint(3, 2, 5)),
        (checkpoint(3, 3, 9, is_last=True), checkpoint(3, 3, 9, is_last=True)),
        (checkpoint(0, 0, 0), checkpoint(0, 0, 0)),
    ],
)
def test_an_epoch_that_was_not_seen_to_its_end_is_not_done(
    content: dict[str, object], expected: dict[str, object]
) -> None:
    reopen_epoch(content)
    assert content == expected
