"""What finished runs left behind, read without anything heavy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from r3cnn.evaluation.metrics_format import Metrics
from r3cnn.reporting.records import RESULT, Record, read_record

METRICS_FILE, CONFIG_FILE = "metrics.json", "config.yaml"
NEEDED_METRICS = ("box", "mask", "loops", "images")
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
    names = (METRICS_FILE, RESULT)
    found = sorted({path.parent for parent in parents for name in names for path in parent.rglob(name)})
    if not found:
        places = " and ".join(f"{parent}/" for parent in parents)
        raise FileNotFoundError(
            f"no finished run below {places}: start one, such as `r3cnn train experiment=demo "
            "output_dir=outputs/demo`, or name the folders of runs elsewhere: `r3cnn report runs=[DIR,DIR]`"
        )
    return found


def read_run(folder: Path, read_config: Callable[[Path], Config]) -> Run:
    """Reads one run: its last evaluation, and its entry in the ledger where it has one, which is enough by itself.

    Args:
        folder: What the run wrote into.
        read_config: Reads a yaml file as plain containers.

    Raises:
        FileNotFoundError: If ``metrics.json`` or ``config.yaml`` is missing, and ``result.json`` as well.
        ValueError: If one of them is not what a run writes.
    """
    metrics_path, config_path, record_path = folder / METRICS_FILE, folder / CONFIG_FILE, folder / RESULT
    record = read_record(folder) if record_path.is_file() else None
    if record is not None and not (metrics_path.is_file() and config_path.is_file()):
        return _run(folder, record.config, record.metrics, record, record_path)
    if not metrics_path.is_file():
        raise FileNotFoundError(f"{folder} has no {METRICS_FILE}: it is no folder of a finished train or evaluate run")
    if not config_path.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG_FILE}, which every train and evaluate run writes")
    return _run(folder, read_config(config_path), _read_metrics(metrics_path), record, config_path)


def _run(folder: Path, config: Config, metrics: Metrics, record: Record | None, source: Path) -> Run:
    try:
        schedule = _mapping(_mapping(_mapping(config["model"])["roi_heads"])["schedule"])
        heads, thresholds = cast(list[int], schedule["heads"]), cast(list[float], schedule["iou_thresholds"])
        data = _data_name(_mapping(config["data"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{source} is no configuration of a train or evaluate run: {error}") from error
    return Run(str(folder), data, tuple(heads), tuple(thresholds), metrics, config, record)


def _read_metrics(path: Path) -> Metrics:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    missing = [key for key in NEEDED_METRICS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it was not written by this version of r3cnn")
    return cast("Metrics", content)


def _data_name(data: Mapping[str, object]) -> str:
    """Name of the data set's folder and of the annotation file: runs on another part of a data set must not mix."""
    name = Path(str(data["root"])).name
    if data["val"] is None:
        return f"{name} without validation".strip()
    annotations = Path(str(_mapping(data["val"])["annotations"]))
    return f"{name} {annotations.stem}".strip()


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise TypeError(f"a mapping is needed, got {value!r}")
    return value
