"""From the configuration of ``r3cnn bench`` to what its parts are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from hydra import compose
from omegaconf import DictConfig

from r3cnn.benchmarks.cases import Effort, Shape
from r3cnn.benchmarks.scale import Sweeps
from r3cnn.benchmarks.setting import REFERENCE, Bench
from r3cnn.cli.configs import Config, plain
from r3cnn.data.split import Split
from r3cnn.detector import RCNN
from r3cnn.structures import Size
from r3cnn.training.checkpoint import build_model

ALL = "all"


def bench_of(config: DictConfig) -> Bench:
    """Networks, batches and how much is run, at the size asked for."""
    size, reference = config.sizes[config.size], experiment_config(REFERENCE, config, ())
    has_gpu = torch.cuda.is_available()

    @cache  # composing takes as long as a step of the smallest networks
    def model_config(experiment: str, overrides: tuple[str, ...]) -> Config:
        return plain(experiment_config(experiment, config, overrides).model)

    def build(experiment: str, overrides: Sequence[str]) -> RCNN:
        torch.manual_seed(config.seed)
        return build_model(model_config(experiment, tuple(overrides)), trusted=None)

    return Bench(
        build=build,
        device=torch.device(("cuda" if has_gpu else "cpu") if config.device == "auto" else config.device),
        shape=Shape(config.batch_sizes[0], pair(size.image_size), size.objects, reference.num_classes),
        mean=tuple(reference.data.mean),
        std=tuple(reference.data.std),
        effort=Effort(size.repetitions, size.warmups, size.candidates, config.seed),
        precisions=tuple(config.precision),
        batch_sizes=tuple(config.batch_sizes),
        own=tuple(size.own_network),
    )


def experiment_config(name: str, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Configuration of an experiment with the overrides of the size asked for, then further ones."""
    return compose("train", [f"experiment={name}", *config.equal, *config.sizes[config.size].network, *overrides])


def systems_of(config: DictConfig) -> list[str]:
    """Experiments that are put beside Mask R-CNN.

    Raises:
        ValueError: For a word that stands for none.
    """
    if isinstance(config.systems, str):
        if config.systems != ALL:
            raise ValueError(f"systems must be a list of experiments or {ALL!r}, got {config.systems!r}")
        return list(config.all_systems)
    return list(config.systems)


def pair(values: Sequence[int]) -> Size:
    """(height, width).

    Raises:
        ValueError: If there are not two of them.
    """
    if len(values) != 2:
        raise ValueError(f"an image size is [height, width], got {list(values)}")
    return int(values[0]), int(values[1])


def sweeps_of(sweeps: DictConfig) -> Sweeps:
    """What ``bench scale`` varies."""
    return Sweeps(
        image_size=[pair(size) for size in sweeps.image_size],
        batch_size=list(sweeps.batch_size),
        rois=list(sweeps.rois),
        loops=list(sweeps.loops),
        classes=list(sweeps.classes),
        objects=list(sweeps.objects),
        ranks=list(sweeps.ranks),
    )


@dataclass(frozen=True)
class DataSet:
    """The images that `bench data` reads, and others where they are there.

    Attributes:
        split: Images and annotations.
        is_there: Whether they are.
        note: Says so.
    """

    split: Split
    is_there: bool
    note: str


def data_of(config: DictConfig) -> DataSet:
    """The data set of ``parts.data``."""
    data = config.parts.data
    split = Split(images=data.images, annotations=data.annotations, keep_empty=False).below(data.root)
    if split.annotation_file.is_file():
        return DataSet(split, True, f"read from {split.image_folder}")
    missing = f"there is no {split.annotation_file}; R3CNN_DATA says where data sets are"
    return DataSet(split, False, f"left out: {missing}")
