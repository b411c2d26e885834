"""What ``r3cnn bench`` puts out: one comparison per row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: What is compared.
        ours: Ours, for a time the median.
        peer: What it is compared with.
        target: Largest ratio that we want; None where the ratio is only told.
        accept: Whether the target is one that the project has to meet.
        unit: Unit of both.
    """

    name: str
    ours: float
    peer: float
    target: float | None = None
    accept: bool = False
    unit: str = "s"

    @property
    def ratio(self) -> float | None:
        """Ours over the other; of times, below 1 we are faster. None where the other is too small to be told from 0."""
        return self.ours / self.peer if self.peer else None

    def to_dict(self) -> dict[str, str | float | bool | None]:
        """The row in the form of ``format=json``."""
        return {
            "name": self.name,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "unit": self.unit,
            "target": self.target,
            "accept": self.accept,
        }


def goal(name: str, ours: float, peer: float, target: float, unit: str = "s") -> Row:
    """A comparison whose target the project has to meet."""
    return Row(name, ours, peer, target, accept=True, unit=unit)
