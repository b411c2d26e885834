"""One evaluation over the results of all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from typing import TypeVar

import torch
from torch import distributed

Value = TypeVar("Value")
Made = TypeVar("Made")


def is_distributed() -> bool:
    """Whether a process group with more than one rank exists."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class Ranks:
    """All ranks, connected over gloo with a time-out of their own.

    Scoring on rank 0 may take longer than the time-out of the group that gradients travel through, after which NCCL
    would end the run. Here nothing travels but results, so the others can wait as long as scoring may take; nor do
    results fill the memory of a GPU.

    Args:
        timeout: How long ranks wait for the slowest of them, and then for rank 0.
    """

    def __init__(self, timeout: timedelta) -> None:
        if timeout <= timedelta(0):
            raise ValueError(f"timeout must be positive, got {timeout}")
        self.timeout = timeout
        self._group: distributed.ProcessGroup | None = None
        self._world: distributed.ProcessGroup | None = None

    def __getstate__(self) -> dict[str, timedelta | None]:
        """The settings alone: a connection belongs to its process, so copies make their own."""
        return {"timeout": self.timeout, "_group": None, "_world": None}

    def open(self) -> None:
        """Connects the ranks, once; to be called on all of them when they are at the same place."""
        if is_distributed() and (self._group is None or self._world is not distributed.group.WORLD):
            made = distributed.new_group(backend="gloo", timeout=self.timeout)
            self._group = made if isinstance(made, distributed.ProcessGroup) else None
            self._world = distributed.group.WORLD

    def gather(self, values: Iterator[Value]) -> Iterator[Value]:
        """Values of all ranks on rank 0; nothing on the others, which have to go through it all the same.

        They travel one of each rank at a time and are not made before, so no more than that is ever in memory.

        Raises:
            TimeoutError: If not all ranks come within the time-out; it says which.
        """
        if not is_distributed():
            yield from values
            return
        self.open()
        try:
            distributed.monitored_barrier(self._group, self.timeout, wait_all_ranks=True)
        except RuntimeError as error:
            raise TimeoutError(self._message("not all ranks came to bring their results together", error)) from error
        is_first = distributed.get_rank() == 0
        while True:
            own = [*islice(values, 1)]
            is_left = torch.tensor(len(own))
            distributed.all_reduce(is_left, distributed.ReduceOp.MAX, self._group)
            if not is_left:
                return
            everyone: list[list[Value]] = [[]] * distributed.get_world_size()
            distributed.gather_object([] if is_first else own, everyone if is_first else None, group=self._group)
            if is_first:
                yield from (one for part in (own, *everyone) for one in part)

    def from_first(self, make: Callable[[], Made]) -> Made:
        """Calls ``make`` on rank 0 and hands its value, which is not None, to all ranks.

        Raises:
            RuntimeError: On the other ranks if ``make`` failed on rank 0, so that none waits for ever.
            TimeoutError: On the other ranks if it takes longer than the time-out, or rank 0 is gone.
        """
        if not is_distributed():
            return make()
        self.open()
        packet: list[tuple[str, Made | None]] = [("", None)]
        failure: Exception | None = None
        if distributed.get_rank() == 0:
            try:
                packet = [("", make())]
            except Exception as error:
                failure = error
                packet = [(f"{type(error).__name__}: {error}", None)]
        try:
            distributed.broadcast_object_list(packet, src=0, group=self._group)
        except RuntimeError as error:
            raise failure or TimeoutError(self._message("rank 0 did not hand out the result", error)) from error
        message, value = packet[0]
        if failure is not None:
            raise failure
        if value is None:
            raise RuntimeError(f"the evaluation failed on rank 0: {message}")
        return value

    def _message(self, what: str, error: RuntimeError) -> str:
        minutes = self.timeout.total_seconds() / 60
        return f"{what} within {minutes:g} minutes (evaluation.timeout_minutes): {error}"
