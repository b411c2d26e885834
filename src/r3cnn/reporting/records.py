"""The ledger: one ``result.json`` in the folder of every finished training run, checked when it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from r3cnn.evaluation.metrics_format import FIGURES, Metrics
from r3cnn.run_files import METRICS, RESULT, decoded, own_file, read_bytes, read_json

KINDS = ("box", "mask")
SHOWN = 5
FORMAT = 1
MemoryKind = Literal["cuda", "resident"]


@dataclass(frozen=True)
class Git:
    """State of the checkout that the code came from.

    Attributes:
        commit: Its full name.
        is_dirty: Whether tracked files differed from it.
    """

    commit: str
    is_dirty: bool


@dataclass(frozen=True)
class DataFacts:
    """What a run learnt from or was scored on.

    Attributes:
        file: Annotation file.
        digest: BLAKE2b of its content.
        images: Images that were used.
        objects: Objects in them, crowds not counted.
    """

    file: str
    digest: str
    images: int
    objects: int


@dataclass(frozen=True)
class Splits:
    """The two parts of a data set."""

    train: DataFacts
    val: DataFacts


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; the paper counts the trainable ones."""

    total: int
    trainable: int


@dataclass(frozen=True)
class Speed:
    """Images per second of all ranks together; None where the run was too short to tell.

    Attributes:
        train: Of training without validation and checkpoints.
        eval: Of evaluation, from the image file to the detections of every loop.
    """

    train: float | None
    eval: float | None


@dataclass(frozen=True)
class Record:
    """What one finished training run was and what came out.

    Attributes:
        format: Version of this format.
        name: The experiment, or "run" without one.
        scale: Size of the experiment: ``coco`` is the paper's.
        sweep: The table that it was started for, if any.
        hash: Names the configuration less what does not change results.
        overrides: What the command line said.
        config: The resolved configuration.
        git: The code; None where it is not in a checkout.
        versions: Of torch, torchvision, lightning, r3cnn and python.
        device: Kind and name of the device.
        ranks: Processes that trained together.
        seed: Of the run.
        data: What it learnt from and was scored on.
        parameters: Of the network.
        train_memory_bytes: Largest on any rank at the worst moment of training; None where it cannot be told.
        memory_kind: ``cuda``: allocated on the GPU; ``resident``: of the whole process.
        images_per_second: In training and evaluation.
        checkpoint_mib: Weights, buffers and the optimizer's state, in MiB, as the paper's Table 1 counts a model.
        metrics: Content of ``metrics.json``.
        roi_balance: Evenness of the positives' IoU, in [0, 1], by split (``train``, ``val``) and loop.
        seconds: How long ``train`` (steps alone), ``eval`` and ``total`` took.
    """

    format: int
    name: str
    scale: str
    sweep: str | None
    hash: str
    overrides: tuple[str, ...]
    config: Mapping[str, object]
    git: Git | None
    versions: Mapping[str, str]
    device: str
    ranks: int
    seed: int
    data: Splits
    parameters: Parameters
    train_memory_bytes: int | None
    memory_kind: MemoryKind
    images_per_second: Speed
    checkpoint_mib: float
    metrics: Metrics
    roi_balance: Mapping[str, Mapping[str, float | None]]
    seconds: Mapping[str, float | None]


def read_record(folder: Path) -> Record:
    """The record that a finished run wrote into ``folder``.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not what this version of r3cnn writes; the message names the file and the key.
    """
    path = own_file(folder, RESULT)
    text = read_bytes(path)
    if (found := decoded(text, _Format, path).format) != FORMAT:
        raise ValueError(f"{path} has format {found!r}, this version of r3cnn reads {FORMAT}")
    record = decoded(text, Record, path)
    check_metrics(record.metrics, path)
    return record


def read_metrics(folder: Path) -> Metrics:
    """Content of ``metrics.json``.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is not what this version of r3cnn writes.
    """
    path = own_file(folder, METRICS)
    metrics = read_json(path, Metrics)
    check_metrics(metrics, path)
    return metrics


def check_metrics(metrics: Metrics, path: Path) -> None:
    """Refuses figures that are none of an evaluation.

    Raises:
        ValueError: If loops or figures are missing, or an AP lies outside [0, 1].
    """
    loops = metrics["loops"]
    if [*loops] != [str(loop) for loop in range(1, len(loops) + 1)] or not loops:
        raise ValueError(f"{path} has loops {[*loops][:SHOWN]}: 1, 2, … are needed")
    for place, kinds in {"result": {kind: metrics[kind] for kind in KINDS}, **loops}.items():  # type: ignore[literal-required]
        for kind in KINDS:
            stats = kinds.get(kind, {})
            if missing := [figure for figure in FIGURES if figure not in stats]:
                raise ValueError(f"{path} lacks {missing[0]} of {kind} in {place}")
            if wrong := [value for value in stats.values() if value is not None and not 0 <= value <= 1]:
                raise ValueError(f"{path} has an AP of {wrong[0]} for {kind} in {place}: AP lies in [0, 1]")
    if not {"seen", "total"} <= metrics["images"].keys():
        raise ValueError(f"{path} does not say how many images were seen of how many")


class _Format(msgspec.Struct):
    format: object = None
