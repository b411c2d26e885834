"""Where a step spends what a clock counts: seconds, or operations. Nothing of it is in the networks themselves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import wraps

import torch
from torch import nn

Clock = Callable[[], float]


class Sections:
    """Splits what a clock counts among named sections; each gets what the sections inside it leave over.

    Args:
        clock: Never runs backwards.

    Attributes:
        clock: May be replaced between two steps.
        spent: By section, in the order in which they were first entered.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.spent: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    def start(self) -> None:
        """Forgets what was spent before."""
        self.spent = {}

    def enter(self, name: str) -> None:
        """From now on ``name`` pays."""
        self._settle()
        self.spent.setdefault(name, 0.0)
        self._open.append(name)

    def leave(self) -> None:
        """From now on the section around pays."""
        self._settle()
        self._open.pop()

    def _settle(self) -> None:
        now = self.clock()
        if self._open:
            self.spent[self._open[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """What happens inside is paid by ``name``."""
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def watch_module(self, module: nn.Module, name: Callable[[], str]) -> None:
        """Every call of ``module`` is paid by the section that ``name`` gives at that moment."""
        module.register_forward_pre_hook(lambda *_: self.enter(name()))
        module.register_forward_hook(lambda *_: self.leave())

    def watch_method(self, owner: object, method: str, name: Callable[[], str]) -> None:
        """The same for a method; ``owner`` is changed in place."""
        own = getattr(owner, method)

        @wraps(own)
        def watched(*args: object, **kwargs: object) -> object:
            with self.section(name()):
                return own(*args, **kwargs)

        setattr(owner, method, watched)


def seconds_on(device: torch.device) -> Clock:
    """A clock that waits for the device before it is read, so that the device's time goes to whoever asked for it."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return read
