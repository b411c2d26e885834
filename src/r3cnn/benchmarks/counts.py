"""What a step takes beside time: operations, counted, and memory; and what the machine could do at best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from r3cnn.benchmarks.cases import DTYPES, Precision
from r3cnn.benchmarks.flops import counted_flops, flop_counter
from r3cnn.benchmarks.peak_memory import LiveTensors, peak_bytes
from r3cnn.benchmarks.timing import take_turns

SIDES = {"cpu": 1536, "cuda": 8192}  # of the matrices: large enough that a larger one is no faster
PEAK_REPETITIONS, PEAK_WARMUPS = 5, 1


@dataclass(frozen=True)
class Counts:
    """What one call took.

    Attributes:
        flops: Floating-point operations, two per multiply-add.
        peak: Bytes of memory at the worst moment.
    """

    flops: int
    peak: int


def counted(call: Callable[[], float], device: torch.device) -> Counts:
    """Counts of a call, which is made once on the CPU, several times on a GPU."""
    if device.type != "cpu":
        return Counts(counted_flops(call), peak_bytes(call, device))
    with LiveTensors() as live, flop_counter() as counter:
        call()
    return Counts(int(counter.get_total_flops()), live.peak)


@cache
def measured_peaks(precisions: tuple[Precision, ...], device: torch.device) -> dict[Precision, float]:
    """FLOP/s of one large matrix product per precision, measured once; fp32 may use TF32 where convolutions do."""
    side = SIDES[device.type]
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        calls: dict[str, Callable[[], float]] = {
            precision: _product(side, DTYPES[precision], device) for precision in precisions
        }
        measured = take_turns(calls, repetitions=PEAK_REPETITIONS, warmups=PEAK_WARMUPS, device=device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return {precision: 2 * side**3 / measured[precision].seconds for precision in precisions}


def _product(side: int, dtype: torch.dtype, device: torch.device) -> Callable[[], float]:
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(first)

    def multiply() -> float:
        torch.mm(first, second, out=out)
        return 0.0

    return multiply
