"""One evaluation over the results of all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import distributed

Value = TypeVar("Value")
Made = TypeVar("Made")


def is_distributed() -> bool:
    """Whether a process group with more than one rank exists."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def gather_by_key(records: dict[int, Value]) -> dict[int, Value] | None:
    """All ranks' records on rank 0, ascending by key; None on the others. A key that came twice counts once."""
    everyone: list[dict[int, Value] | None] | None = [records]
    if is_distributed():
        everyone = [None] * distributed.get_world_size() if distributed.get_rank() == 0 else None
        distributed.gather_object(records, everyone)
    if everyone is None:
        return None
    merged = {key: value for part in everyone if part for key, value in part.items()}
    return {key: merged[key] for key in sorted(merged)}


def broadcast_from_first(make: Callable[[], Made]) -> Made:
    """Calls ``make`` on rank 0 and hands its value to all ranks.

    Raises:
        RuntimeError: On the other ranks if ``make`` failed on rank 0, so that none waits for ever.
    """
    if not is_distributed():
        return make()
    packet: list[tuple[str, Made | None]] = [("", None)]
    failure: Exception | None = None
    if distributed.get_rank() == 0:
        try:
            packet = [("", make())]
        except Exception as error:
            failure = error
            packet = [(f"{type(error).__name__}: {error}", None)]
    distributed.broadcast_object_list(packet, src=0)
    message, value = packet[0]
    if failure is not None:
        raise failure
    if value is None:
        raise RuntimeError(f"the evaluation failed on rank 0: {message}")
    return value
