"""The account that a conversion gives of every key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from r3cnn.structures import Id


@dataclass(frozen=True)
class Report:
    """What became of a checkpoint.

    Attributes:
        source: File or name that was read.
        output: File that was written.
        layout: What kind of checkpoint was read or written.
        network: Experiment whose network the weights are for.
        used: Name in the output of each key that was used.
        ignored: Reason for each key that was not.
        unfilled: Reason for each tensor of the output that the source does not fill.
        classes: Name of each label.
        category_ids: Id of each label.
        preprocessing: What happens to an image before the network, and where that was found.
        notes: What was changed beyond names, and what differs beyond weights.
    """

    source: str
    output: str
    layout: str
    network: str
    used: Mapping[str, str]
    ignored: Mapping[str, str]
    unfilled: Mapping[str, str]
    classes: Sequence[str]
    category_ids: Sequence[Id]
    preprocessing: Mapping[str, object]
    notes: Sequence[str] = field(default=())

    def to_dict(self) -> dict[str, object]:
        """Plain containers for JSON; ``filled`` are the tensors of the output that came from the source."""
        values = asdict(self)
        return {**values, "filled": sorted(self.used.values())}

    def reasons(self) -> list[tuple[str, str, int, str]]:
        """Rows ``(what, reason, number of keys, an example)`` of what was left out, one per reason."""
        rows = []
        for what, entries in (("not used", self.ignored), ("not filled", self.unfilled)):
            for reason in dict.fromkeys(entries.values()):
                keys = [key for key, given in entries.items() if given == reason]
                rows.append((what, reason, len(keys), keys[0]))
        return rows
