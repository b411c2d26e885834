"""Optional ways to run a trained network, all off by default: they trade accuracy for time and change no weight."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor, nn

from r3cnn.detector import RCNN, InferencePrecision
from r3cnn.roi.early_exit import LoopExit, StayInLoops

log = logging.getLogger(__name__)
MASK_HEAD_STEPS = ("trunk", "predict", "predict_class")


def device_of(name: torch.device | str) -> torch.device:
    """The device of a name; ``auto`` is a GPU if there is one.

    Raises:
        ValueError: If there is no such device.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.zeros(1, device=device).item()  # which no device without memory, such as meta, can do
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device is {str(name)!r}: auto, or a device of this machine, is needed ({reason})") from error
    return device


@dataclass(frozen=True)
class InferenceModes:
    """How a network runs at inference, beside the number of its loops.

    Attributes:
        early_exit: Which RoIs leave the loops early: `StayInLoops`, or an `EarlyExit`.
        precision: ``float32``, or ``bf16`` for the layers.
        compile: Whether backbone and heads are compiled. The first images of each size then take long.

    Raises:
        ValueError: For an unknown value.
    """

    early_exit: LoopExit = field(default_factory=StayInLoops)
    precision: InferencePrecision = "float32"
    compile: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.early_exit, LoopExit):
            raise ValueError(f"early_exit must be a StayInLoops or an EarlyExit, got {self.early_exit!r}")
        if self.precision not in get_args(InferencePrecision):
            raise ValueError(f"precision must be one of {get_args(InferencePrecision)}, got {self.precision!r}")

    def apply(self, model: RCNN) -> None:
        """Puts a network into these modes; one that is compiled already stays so."""
        model.roi_heads.early_exit = self.early_exit
        model.inference_precision = self.precision
        if self.compile:
            compile_network(model)


def compile_network(model: RCNN) -> None:
    """Compiles backbone, pyramid, proposal network, box, mask and mask-IoU heads in place, when they are first called.

    On accelerators empty RoI slots are kept, so all loops and images share one graph per head; on CPU, where pooling
    and judging empty slots costs more than compilation gains, the number of rows is a variable of the graph. Pooling,
    NMS and what lies between the heads stay as they are. Where nothing can be compiled, as without a C++ compiler, the
    network stays as it is and a warning says why.
    """
    reason = why_not_compilable()
    if reason is not None:
        log.warning("compile=true has no effect, the network runs as it is: %s", reason)
        return
    branch = model.roi_heads.mask_branch
    for part in (model.backbone, model.fpn, model.rpn.head, branch.iou_head, *model.roi_heads.box_heads):
        if isinstance(part, nn.Module):
            part.compile()
    for head in branch.heads:
        for step in MASK_HEAD_STEPS:
            setattr(head, step, torch.compile(getattr(head, step)))


def why_not_compilable() -> str | None:
    """What stops `torch.compile` on this machine, found out with one addition; None if nothing does."""
    try:
        torch.compile(_plus_one)(torch.zeros(8, device="cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:  # torch's own errors of compilation are all of this kind
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    return None


def _plus_one(values: Tensor) -> Tensor:
    return values + 1
