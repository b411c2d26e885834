"""Times of several calls that take turns, and what they ran on."""

from __future__ import annotations

import gc
import logging
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision

log = logging.getLogger(__name__)
Machine = dict[str, str | int]
GPU_FACTS = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")
GPU_TIMEOUT = 30.0  # seconds that the driver's tool may take


@dataclass(frozen=True)
class Measurement:
    """Outcome of one call that was timed several times.

    Attributes:
        seconds: Median.
        outcome: What the last call returned.
    """

    seconds: float
    outcome: float


def take_turns(
    calls: Mapping[str, Callable[[], float]],
    *,
    repetitions: int,
    warmups: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Measurement]:
    """Times all calls round by round, so that whatever else the machine does meets all of them alike.

    Args:
        calls: What to time, by name.
        repetitions: Rounds that count, at least 1.
        warmups: Rounds before them that do not.
        device: Waited for before the clock is read.
        clock: Seconds; `time.process_time` counts those of the processor, which others on the machine disturb less.

    Raises:
        ValueError: For less than one round.
    """
    if repetitions < 1 or warmups < 0:
        raise ValueError(f"repetitions must be >= 1 and warmups >= 0, got {repetitions} and {warmups}")
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    outcomes: dict[str, float] = {}
    for round_number in range(-warmups, repetitions):
        for name, call in calls.items():
            gc.collect()
            _wait_for(device)
            start = clock()
            outcomes[name] = call()
            _wait_for(device)
            spent = clock() - start
            if round_number >= 0:
                seconds[name].append(spent)
        spents = ", ".join(f"{name} {spent[-1]:.3f} s" for name, spent in seconds.items() if spent)
        log.info("%s", f"round {round_number + 1} of {repetitions}: {spents}" if round_number >= 0 else "warm-up done")
    return {name: Measurement(statistics.median(spent), outcomes[name]) for name, spent in seconds.items()}


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> Machine:
    """What the times depend on beside the code."""
    return {
        "device": device.type,
        **(_gpu(device) if device.type == "cuda" else {}),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def _gpu(device: torch.device) -> Machine:
    """Name, versions, and the clocks at this moment, as far as the driver's own tool tells them."""
    cudnn = torch.backends.cudnn
    found: Machine = {
        "device": torch.cuda.get_device_name(device),
        "gpus": torch.cuda.device_count(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(cudnn.version()),
        "tf32": f"matmul {torch.backends.cuda.matmul.allow_tf32}, cudnn {cudnn.allow_tf32}",
    }
    card = (
        f"GPU-{torch.cuda.get_device_properties(device).uuid}"  # the driver counts cards that this process cannot see
    )
    command = ["nvidia-smi", f"--query-gpu={','.join(GPU_FACTS)}", "--format=csv,noheader", f"--id={card}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=GPU_TIMEOUT, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return found
    return found | dict(zip(GPU_FACTS, answer.strip().split(", "), strict=False))


def _processor() -> str:
    """Name of the processor; on Linux only /proc knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
