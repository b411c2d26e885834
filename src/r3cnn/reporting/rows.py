"""Which finished runs measure which row of the paper, and which of them may stand in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from r3cnn.reporting.paper import PaperRow
from r3cnn.reporting.records import Record
from r3cnn.reporting.setting import Setting, configuration_of, setting_of, value_at
from r3cnn.run_files import RESULT


@dataclass(frozen=True)
class Scored:
    """One run looked at after one of its loops.

    Attributes:
        folder: The run's.
        record: Its result.
        loop: Loops after which it is looked at, from 1.
    """

    folder: Path
    record: Record
    loop: int

    def ap(self, kind: str, measure: str) -> float | None:
        """Average precision in percent; None where there is no ground truth."""
        value = self.record.metrics["loops"][str(self.loop)][kind].get(measure)
        return None if value is None else 100 * value

    @property
    def is_last_loop(self) -> bool:
        """Whether this is what the evaluation ended with, so that its speed is that of this many loops."""
        return self.loop == len(self.record.metrics["loops"])


def by_setting(records: Mapping[Path, Record]) -> dict[Setting, dict[Path, Record]]:
    """The runs of each setting, the paper's scale first, then in the order of the names."""
    found: dict[Setting, dict[Path, Record]] = {}
    for folder, record in records.items():
        found.setdefault(setting_of(record), {})[folder] = record
    return dict(sorted(found.items(), key=lambda item: (not item[0].is_the_papers, item[0].describe())))


def runs_of(row: PaperRow, records: Mapping[Path, Record]) -> tuple[Scored, ...]:
    """What measures a row: one run per seed, in ascending order, all of one configuration.

    The more direct experiment counts, then the configuration of the newest run; of several runs with one seed the
    newest, so that no result counts twice.

    Args:
        row: A row of the paper.
        records: Runs of one setting.
    """
    chosen, _ = _by_configuration(row, records)
    return tuple(one for _, one in sorted({one.record.seed: one for one in chosen}.items()))


def left_out(row: PaperRow, records: Mapping[Path, Record]) -> tuple[Path, ...]:
    """Runs of the experiment that measures a row which have another configuration than those that count."""
    chosen, others = _by_configuration(row, records)
    names = {one.record.name for one in chosen}
    return tuple(sorted(one.folder for one in others if one.record.name in names))


def _by_configuration(row: PaperRow, records: Mapping[Path, Record]) -> tuple[list[Scored], list[Scored]]:
    """What could measure a row: the runs of the configuration that counts, and the others; each the newest last."""
    found = [scored for folder, record in records.items() if (scored := _scored(row, folder, record)) is not None]
    found.sort(key=lambda one: (-row.experiments.index(one.record.name), (one.folder / RESULT).stat().st_mtime))
    names = [configuration_of(one.record) for one in found]
    chosen = [one for name, one in zip(names, found, strict=True) if name == names[-1]]
    return chosen, [one for name, one in zip(names, found, strict=True) if name != names[-1]]


def _scored(row: PaperRow, folder: Path, record: Record) -> Scored | None:
    """The run after the loops of the row; None if it is another system's or was evaluated with fewer loops."""
    if record.name not in row.experiments:
        return None
    loop = row.eval_loops or len(trained_heads(record.config))
    return Scored(folder, record, loop) if str(loop) in record.metrics["loops"] else None


def trained_heads(config: Mapping[str, object]) -> Sequence[int]:
    """Head of each training loop in a resolved configuration.

    Raises:
        ValueError: If it is none of a run.
    """
    value = value_at(config, "model.roi_heads.schedule.heads")
    if not isinstance(value, list):
        raise ValueError("the configuration lacks model.roi_heads.schedule.heads: it is none of a training run")
    return value
