"""How many loops a trained network runs, and which head in each."""

from __future__ import annotations

from collections.abc import Sequence

from r3cnn.schedule import LoopSchedule


def eval_heads(loops: int | None, heads: Sequence[int] | None, schedule: LoopSchedule) -> list[int]:
    """Which head each evaluation loop runs.

    Args:
        loops: Number of loops asked for, or None for as many as trained.
        heads: Head of each loop asked for, or None to derive it from ``loops``.
        schedule: Schedule of the trained network.

    Raises:
        ValueError: When a network of several heads is asked for more loops than it was made for without saying which
            head to repeat, or when both arguments contradict each other.
    """
    if loops is not None and (not isinstance(loops, int) or isinstance(loops, bool) or loops < 1):
        raise ValueError(f"eval_loops must be a whole number >= 1, got {loops!r}")
    if heads is not None:
        if loops is not None and loops != len(heads):
            raise ValueError(f"eval_loops={loops} contradicts eval_heads={list(heads)}: give one of them")
        return list(heads)
    trained = list(schedule.eval_heads)
    if loops is None:
        return trained
    if schedule.num_heads == 1:
        return [0] * loops
    if loops > len(trained):
        example = trained + trained[-1:] * (loops - len(trained))
        raise ValueError(
            f"eval_loops={loops}, but the network was made for {len(trained)} loops with {schedule.num_heads} heads: "
            f"say which head each loop runs, such as eval_heads={example}"
        )
    return trained[:loops]
