"""What a foreign state dict has become, and how well that fits a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Shape = tuple[int, ...]
SHOWN = 6  # names that an error lists of each kind


@dataclass(frozen=True)
class Translation:
    """A foreign state dict under our names; every key of theirs is in exactly one of the fields.

    Attributes:
        weights: By our name.
        sources: Their key of each of ``weights``.
        ignored: Their keys that are not needed, each with the reason.
        unknown: Their keys that have no counterpart here.
        unfilled: Our weights that such a source cannot have, each with the reason.
        notes: What was changed beyond names.
    """

    weights: Mapping[str, Tensor]
    sources: Mapping[str, str]
    ignored: Mapping[str, str] = field(default_factory=dict)
    unknown: Sequence[str] = ()
    unfilled: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Fit:
    """Difference between weights and a network.

    Attributes:
        missing: Names that only the network has.
        surplus: Names that only the weights have.
        misshapen: Names that both have, with the shape in the weights and in the network.
    """

    missing: tuple[str, ...]
    surplus: tuple[str, ...]
    misshapen: Mapping[str, tuple[Shape, Shape]]

    @property
    def distance(self) -> int:
        """Number of differing names; 0 is a fit."""
        return len(self.missing) + len(self.surplus) + len(self.misshapen)

    def lines(self, sources: Mapping[str, str] | None = None) -> list[str]:
        """One line per kind of difference that there is, with the first names of each.

        Args:
            sources: What the weights are called where they come from, by our name.
        """
        called = sources or {}
        shapes = [
            f"{called.get(name, name)} {list(got)} instead of {list(want)}"
            for name, (got, want) in self.misshapen.items()
        ]
        kinds = (
            ("that the network needs and the weights lack", self.missing),
            ("that the weights have and the network does not", [called.get(name, name) for name in self.surplus]),
            ("of another shape", shapes),
        )
        return [f"{len(names)} tensors {kind}: {shortened(names)}" for kind, names in kinds if names]


def compare(weights: Mapping[str, Shape], network: Mapping[str, Shape]) -> Fit:
    """How shapes by name differ from those of a network.

    Counters of batch norm (``num_batches_tracked``) may be missing: no output depends on them.
    """
    counters = {name for name in network if name.endswith(".num_batches_tracked")}
    return Fit(
        missing=tuple(name for name in network if name not in weights and name not in counters),
        surplus=tuple(name for name in weights if name not in network),
        misshapen={
            name: (shape, network[name]) for name, shape in weights.items() if network.get(name, shape) != shape
        },
    )


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, Shape]:
    """Shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def shortened(names: Sequence[str], shown: int = SHOWN) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Refuses broken weights.

    Raises:
        ValueError: For NaN or infinity, naming the tensors.
    """
    broken = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"{len(broken)} tensors hold NaN or infinity: {shortened(broken)}")
