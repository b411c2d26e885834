"""What finished runs left behind, read without anything heavy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from r3cnn.evaluation.metrics_format import Metrics
from r3cnn.reporting.records import Record, read_metrics, read_record
from r3cnn.run_files import CONFIG, METRICS, RESULT, mapping_at, own_file, read_config

Config = Mapping[str, object]


@dataclass(frozen=True)
class Run:
    """One finished `r3cnn train` or `r3cnn evaluate`.

    Attributes:
        name: Its folder, as it was given.
        data: Data set and annotation file that it was evaluated on.
        heads: Head of each training loop.
        iou_thresholds: IoU threshold of each training loop.
        metrics: Content of ``metrics.json``.
        config: Resolved configuration.
        record: What the ledger says; None for an evaluation, or a run of an older version.
    """

    name: str
    data: str
    heads: tuple[int, ...]
    iou_thresholds: tuple[float, ...]
    metrics: Metrics
    config: Config
    record: Record | None = None


def find_runs(parents: Sequence[Path]) -> list[Path]:
    """Every folder below ``parents`` that a finished run wrote, in order of their names.

    Raises:
        FileNotFoundError: If there is none.
    """
    names = (METRICS, RESULT)
    found = sorted({path.parent for parent in parents for name in names for path in parent.rglob(name)})
    if not found:
        places = " and ".join(f"{parent}/" for parent in parents)
        raise FileNotFoundError(
            f"no finished run below {places}: start one, such as `r3cnn train experiment=demo "
            "output_dir=outputs/demo`, or name the folders of runs elsewhere: `r3cnn report runs=[DIR,DIR]`"
        )
    return found


def read_run(folder: Path) -> Run:
    """Reads one run: its last evaluation, and its entry in the ledger where it has one, which is enough by itself.

    Args:
        folder: What the run wrote into.

    Raises:
        FileNotFoundError: If ``metrics.json`` or ``config.yaml`` is missing, and ``result.json`` as well.
        ValueError: If one of them is not what a run writes.
    """
    has_record, *has_evaluation = (os.path.lexists(folder / name) for name in (RESULT, METRICS, CONFIG))
    record = read_record(folder) if has_record else None
    if record is not None and not all(has_evaluation):
        return _run(folder, record.config, record.metrics, record, RESULT)
    metrics = read_metrics(folder)
    return _run(folder, read_config(own_file(folder, CONFIG)), metrics, record, CONFIG)


def _run(folder: Path, config: Config, metrics: Metrics, record: Record | None, source: str) -> Run:
    try:
        schedule = msgspec.convert(mapping_at(config, "model", "roi_heads", "schedule"), _Schedule)
        return Run(str(folder), _data_name(config), schedule.heads, schedule.iou_thresholds, metrics, config, record)
    except (ValueError, msgspec.ValidationError) as error:
        raise ValueError(f"{folder / source} is no configuration of a train or evaluate run: {error}") from error


class _Schedule(msgspec.Struct):
    heads: tuple[int, ...]
    iou_thresholds: tuple[float, ...]


def _data_name(config: Config) -> str:
    """Name of the data set's folder and of the annotation file: runs on another part of a data set must not mix."""
    data = mapping_at(config, "data")
    name = Path(str(data.get("root", ""))).name
    if data.get("val", ...) is None:
        return f"{name} without validation".strip()
    annotations = mapping_at(config, "data", "val").get("annotations")
    return f"{name} {Path(str(annotations)).stem}".strip()
