"""Ours beside a baseline: calls timed in turns, calls measured in a process of their own, and rows of both."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from pycocotools.coco import COCO
from torch.profiler import record_function

from r3cnn.end_signals import end_silently
from r3cnn.process_memory import peak_bytes

log = logging.getLogger(__name__)
CPU, MB = torch.device("cpu"), 1e6
NOISY = 0.1  # a spread above it asks for a quieter machine or more repetitions
SECTION = "r3cnn: "  # what names of sections begin with, beside those that torch's own code records
CLEAR, RESET_PEAK = Path("/proc/self/clear_refs"), "5"


@dataclass(frozen=True)
class Row:
    """One comparison, as it stands in ``format=json``.

    Attributes:
        name: What is compared.
        ours: Ours, for a time the median.
        baseline: What it is compared with.
        ratio: Ours over the baseline, of times below 1 where we are faster; None where the baseline is 0. Where both
            were timed in turns, the median of the ratios of the rounds.
        spread: Interquartile range of these ratios over their median.
        unit: Unit of both amounts.
        target: Largest ratio that the project aims at, if there is one.
    """

    name: str
    ours: float
    baseline: float
    ratio: float | None
    spread: float | None
    unit: str
    target: float | None


def compare(name: str, ours: float, baseline: float, target: float | None = None, unit: str = "s") -> Row:
    """Two amounts that were not measured in turns."""
    return Row(name, ours, baseline, ours / baseline if baseline else None, None, unit, target)


@dataclass(frozen=True)
class Turns:
    """Calls that were timed in turns.

    Attributes:
        rounds: Seconds of each round, by the name of the call.
        outcomes: What the last round returned, by the name of the call.
    """

    rounds: Mapping[str, Sequence[float]]
    outcomes: Mapping[str, float]

    def median(self, name: str) -> float:
        """Seconds."""
        return statistics.median(self.rounds[name])

    def row(self, title: str, ours: str, baseline: str, target: float | None = None, *, per_call: int = 1) -> Row:
        """One call beside another; seconds are divided by ``per_call``, such as the images of a call.

        The ratio is paired by round, so that what slows down a whole round cancels.
        """
        low, middle, high = quartiles([a / b for a, b in zip(self.rounds[ours], self.rounds[baseline], strict=True)])
        amounts = self.median(ours) / per_call, self.median(baseline) / per_call
        return Row(title, *amounts, middle, (high - low) / middle, "s", target)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First, second and third quartile, of one value too."""
    low, middle, high = statistics.quantiles([*values, *values] if len(values) == 1 else values, method="inclusive")
    return low, middle, high


def take_turns(
    calls: Mapping[str, Callable[[], float]],
    *,
    repetitions: int,
    warmups: int,
    device: torch.device = CPU,
    clock: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Times all calls round by round, so that whatever else the machine does meets all of them alike.

    Args:
        calls: What to time, by name.
        repetitions: Rounds that count, at least 1.
        warmups: Rounds before them that do not.
        device: Waited for before the clock is read.
        clock: Seconds; `time.process_time` counts those of the processor, which others on the machine disturb less.
    """
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    outcomes: dict[str, float] = {}
    for number in range(-warmups, repetitions):
        for name, call in calls.items():
            gc.collect()
            wait_for(device)
            start = clock()
            outcomes[name] = call()
            wait_for(device)
            if number >= 0:
                rounds[name].append(clock() - start)
        spent = ", ".join(f"{name} {seconds[-1]:.3f} s" for name, seconds in rounds.items() if seconds)
        log.info("%s", f"round {number + 1} of {repetitions}: {spent}" if number >= 0 else "warm-up done")
    return Turns(rounds, outcomes)


def wait_for(device: torch.device) -> None:
    """Returns when the device has done what it was asked to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def section(name: str) -> Iterator[None]:
    """A part of a step, for `torch.profiler`; while it looks, the device's time goes to whoever asked for it."""
    _finish_if_profiled()
    with record_function(SECTION + name):
        yield
        _finish_if_profiled()


def _finish_if_profiled() -> None:
    if torch.cuda.is_available() and torch.autograd._profiler_enabled():
        torch.cuda.synchronize()


def run_alone(call: Callable[[], object], *, warm_up: Callable[[], object] = int) -> tuple[float, int]:
    """Measures a call in a new process (Linux).

    In the process that asks, what the allocator kept of earlier work would be taken again without growing. The kernel
    itself keeps the mark of the worst moment; it is set back before the call.

    Args:
        call: Can be pickled, such as a partial of a function of a module; what it returns is dropped.
        warm_up: A smaller one that runs before it, for what is set up once, such as threads.

    Returns:
        Seconds of the processor in all threads and the system's calls, and bytes by which the resident memory grew at
        the worst moment.

    Raises:
        OSError: If the kernel does not let the process set the mark back.
        Exception: Whatever ``call`` raises.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_silently) as pool:
        return pool.submit(_measured, call, warm_up).result()


def _measured(call: Callable[[], object], warm_up: Callable[[], object]) -> tuple[float, int]:
    warm_up()
    gc.collect()
    CLEAR.write_text(RESET_PEAK, encoding="ascii")
    before, start = peak_bytes(), time.process_time()
    call()
    return time.process_time() - start, peak_bytes() - before


def index_with_pycocotools(file: Path) -> COCO:
    """What the baselines of the data path hold an annotation file in."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        return COCO(str(file))


def machine(device: torch.device) -> dict[str, object]:
    """What the times depend on beside the code."""
    cpuinfo, found = Path("/proc/cpuinfo"), {"device": device.type}
    if device.type == "cuda":
        cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
        found["device"] = f"{torch.cuda.get_device_name(device)}, one of {torch.cuda.device_count()}"
        found["cuda"] = f"{torch.version.cuda}, cudnn {cudnn.version()}"
        found["tf32"] = f"matmul {cuda.matmul.allow_tf32}, cudnn {cudnn.allow_tf32}"
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        **found,
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
