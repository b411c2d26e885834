"""Ways to run a network: precision, size of the batch, how often."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from r3cnn.structures import Size

Precision = Literal["fp32", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Effort:
    """How much is run.

    Attributes:
        repetitions: Rounds that count.
        warmups: Rounds before them.
        candidates: Class scores per image that pass the score threshold at inference.
        seed: Of the sampling of RoIs.
    """

    repetitions: int
    warmups: int
    candidates: int
    seed: int


@dataclass(frozen=True)
class Shape:
    """What a batch consists of.

    Attributes:
        batch_size: Images.
        image_size: Size of each in pixels.
        objects: Ground truths per image.
        num_classes: K, foreground classes.
    """

    batch_size: int
    image_size: Size
    objects: int
    num_classes: int


@dataclass(frozen=True)
class Case:
    """One way to run a network.

    Attributes:
        precision: ``fp32``, or ``bf16`` for autocast to bfloat16.
        shape: Of the batch.
    """

    precision: Precision
    shape: Shape

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {get_args(Precision)}, got {self.precision!r}")

    @property
    def name(self) -> str:
        """For the rows."""
        height, width = self.shape.image_size
        return f"{self.precision}, {self.shape.batch_size} x {width}x{height}"

    def context(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        """What a step runs under."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(device.type, DTYPES[self.precision])
