"""``r3cnn bench``: how long our Mask R-CNN takes beside torchvision's, and R3-CNN beside Mask R-CNN."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from hydra import compose
from omegaconf import DictConfig

from r3cnn.benchmarks.rows import Effort, Row, inference_rows, training_rows
from r3cnn.benchmarks.timing import machine
from r3cnn.benchmarks.workload import Workload, draw_workload
from r3cnn.cli.configs import Config, plain
from r3cnn.detector import RCNN
from r3cnn.training.checkpoint import build_model

FORMATS = ("table", "json")
PARTS = ("all", "train", "infer")
REFERENCE, RECURSIVE = "mask_rcnn", "r3cnn_naive"


def run(config: DictConfig) -> None:
    """Times the parts asked for and prints a table or one JSON object."""
    for name, allowed in (("format", FORMATS), ("part", PARTS), ("size", tuple(config.sizes))):
        if config[name] not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {config[name]!r}")
    settings = config.sizes[config.size]
    workload = workload_of(config)
    effort = Effort(settings.repetitions, settings.warmups, settings.candidates, config.seed)
    details: Config = {"size": config.size, "batch_size": config.batch_size, **plain(settings)}
    rows: list[Row] = []
    if config.part != "infer":
        models = [network(experiment, config, workload) for experiment in (REFERENCE, RECURSIVE)]
        rows += training_rows(models[0], models[1], workload, effort)
    if config.part != "train":
        found, details["detections"] = inference_rows(network(REFERENCE, config, workload), workload, effort)
        rows += found
    about: Config = {**machine(workload.images.device), "workload": details}
    if config.format == "json":
        print(json.dumps({"rows": [row.to_dict() for row in rows], "machine": about}, allow_nan=False))
    else:
        print_table(rows, about)


def experiment_config(name: str, config: DictConfig) -> DictConfig:
    """Configuration of an experiment with the overrides of the size asked for."""
    return compose("train", [f"experiment={name}", *config.sizes[config.size].network])


def workload_of(config: DictConfig) -> Workload:
    """The batch that everything is timed on."""
    settings, experiment = config.sizes[config.size], experiment_config(REFERENCE, config)
    has_gpu = torch.cuda.is_available()
    name = ("cuda" if has_gpu else "cpu") if config.device == "auto" else config.device
    height, width = settings.image_size
    return draw_workload(
        batch_size=config.batch_size,
        size=(height, width),
        objects=settings.objects,
        num_classes=experiment.num_classes,
        mean=list(experiment.data.mean),
        std=list(experiment.data.std),
        seed=config.seed,
        device=torch.device(name),
    )


def network(experiment: str, config: DictConfig, workload: Workload) -> RCNN:
    """A network with new random weights on the device of the batch."""
    torch.manual_seed(config.seed)
    model = build_model(plain(experiment_config(experiment, config).model), trusted=None)
    return model.to(workload.images.device)


def print_table(rows: Sequence[Row], about: Config) -> None:
    """Prints the comparisons and what they ran on."""
    from rich.console import Console
    from rich.table import Table

    table = Table("comparison", title="Median times, in turns", title_justify="left")
    for heading in ("first", "second", "ratio", "target"):
        table.add_column(heading, justify="right")
    for row in rows:
        target = "–" if row.target is None else f"<= {row.target:.2f}"
        times = [f"{seconds:.3f} {row.unit}" for seconds in (row.ours, row.peer)]
        table.add_row(row.name, *times, f"{row.ratio:.2f}", target)
    console = Console()
    console.print(table)
    for name, value in about.items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True, markup=False)
