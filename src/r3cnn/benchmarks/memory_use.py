"""How much memory a call takes beyond what its process had."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from r3cnn.process_memory import peak_bytes

CLEAR, RESET_PEAK = Path("/proc/self/clear_refs"), "5"


def extra_bytes(call: Callable[[], object], *, warm_up: Callable[[], object] | None = None) -> int:
    """Growth of the resident memory of a new process at the worst moment of ``call`` (Linux).

    In the process that asks, what the allocator kept of earlier work would be taken again without growing, and what
    other threads or the kernel give back meanwhile would be subtracted: after a long session a call of 200 MiB was
    seen to take nothing. The kernel itself keeps the mark; it is set back before the call. (A thread that looks every
    millisecond misses what comes and goes while a busy machine does not let it run.)

    Args:
        call: Can be pickled, such as a partial of a function of a module; what it returns is dropped.
        warm_up: A smaller one that runs before it, for what is set up once, such as threads.

    Raises:
        OSError: If the kernel does not let the process set the mark back.
        Exception: Whatever ``call`` raises.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_growth, call, warm_up).result()


def _growth(call: Callable[[], object], warm_up: Callable[[], object] | None) -> int:
    if warm_up is not None:
        warm_up()
    gc.collect()
    CLEAR.write_text(RESET_PEAK, encoding="ascii")
    before = peak_bytes()
    call()
    return peak_bytes() - before
