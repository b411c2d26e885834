"""``r3cnn bench``: how long ours takes, or how much memory, beside others that do the same work."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import torch
from hydra import compose
from omegaconf import DictConfig

from r3cnn.benchmarks.coco_eval import coco_eval_rows
from r3cnn.benchmarks.data import data_rows
from r3cnn.benchmarks.harness import NOISY, Row, machine
from r3cnn.benchmarks.index import index_rows
from r3cnn.benchmarks.masks import mask_rows
from r3cnn.benchmarks.memory import memory_rows as worker_memory_rows
from r3cnn.benchmarks.networks import INFERENCE, TRAINING, Bench, compare_networks, memory_rows
from r3cnn.benchmarks.parts import part_rows
from r3cnn.benchmarks.scale import scale_rows
from r3cnn.benchmarks.workload import Case
from r3cnn.cli.configs import Config, plain
from r3cnn.detector import RCNN
from r3cnn.inference_modes import device_of
from r3cnn.reporting.console import plain_table, terminal
from r3cnn.training.checkpoint import build_model

ALL = "all"
WIDTH = 160  # of a table that does not go to a terminal


def run(config: DictConfig) -> None:
    """Times the part asked for and prints a table or one JSON object.

    Raises:
        ValueError: For a choice that does not exist.
    """
    for name, allowed in (("part", (ALL, *NETWORK_PARTS, *OTHER_PARTS)), ("size", tuple(config.sizes))):
        if config[name] not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {config[name]!r}")
    if config.part in OTHER_PARTS:
        workload = {name: _frozen(value) for name, value in plain(config.parts[config.part]).items()}
        rows, measured = OTHER_PARTS[config.part](**workload), Config()
        about = {**machine(torch.device("cpu")), "workload": workload}
    else:
        rows, measured, about = network_rows(config)
    if config.format == "json":
        about |= {"measured": measured} if measured else {}
        print(json.dumps({"rows": [asdict(row) for row in rows], "machine": about}, allow_nan=False))
    else:
        print_table(rows, about)


def _frozen(value: Any) -> Any:
    """A list, such as the size of an image, as a tuple."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def network_rows(config: DictConfig) -> tuple[list[Row], Config, Config]:
    """Comparisons of whole networks, of one part or of all; the figures behind them, and what they ran on."""
    bench = bench_of(config)
    rows: list[Row] = []
    measured: Config = {}
    for part in NETWORK_PARTS if config.part == ALL else (config.part,):
        found, measured[part] = NETWORK_PARTS[part](bench, config)
        rows += found
    workload = {key: plain(config)[key] for key in ("size", "precision", "batch_sizes")}
    return rows, measured, {**machine(bench.device), "workload": {**workload, **plain(config.sizes[config.size])}}


def bench_of(config: DictConfig) -> Bench:
    """Networks, batches and how much is run, at the size asked for."""
    size = config.sizes[config.size]

    @cache  # composing takes as long as a step of the smallest networks
    def model_config(experiment: str, overrides: tuple[str, ...]) -> Config:
        words = [f"experiment={experiment}", *config.equal, *size.network, *overrides]
        return plain(compose("train", words).model)

    def build(experiment: str, overrides: Sequence[str]) -> RCNN:
        torch.manual_seed(config.seed)
        return build_model(model_config(experiment, tuple(overrides)), trusted=None)

    return Bench(
        build=build,
        device=device_of(config.device),
        cases=[
            Case(precision, images, tuple(size.image_size), size.objects)
            for precision in config.precision
            for images in config.batch_sizes
        ],
        candidates=size.candidates,
        repetitions=size.repetitions,
        warmups=size.warmups,
        seed=config.seed,
        own=tuple(size.own_network),
    )


def systems_of(config: DictConfig) -> list[str]:
    """Experiments that are put beside Mask R-CNN.

    Raises:
        ValueError: For a word that stands for none.
    """
    if isinstance(config.systems, str) and config.systems != ALL:
        raise ValueError(f"systems must be a list of experiments or {ALL!r}, got {config.systems!r}")
    return list(config.all_systems if config.systems == ALL else config.systems)


def _train(bench: Bench, config: DictConfig) -> tuple[list[Row], object]:
    rows, measured = compare_networks(TRAINING, bench, systems_of(config))
    memory = config.sizes[config.size].memory
    for case in {case.precision: case for case in bench.cases}.values():
        rows += memory_rows(bench, _resized(case, memory), memory.network)
    return rows, measured


def _scale(bench: Bench, config: DictConfig) -> tuple[list[Row], object]:
    settings = config.sizes[config.size].scale
    case = replace(_resized(bench.cases[0], settings), objects=settings.objects)
    sweeps = {axis: _frozen(values) for axis, values in plain(settings.sweeps).items()}
    return scale_rows(replace(bench, cases=[case]), [config.scale.system], sweeps, settings.network)


def _resized(case: Case, settings: DictConfig) -> Case:
    return replace(case, batch_size=settings.batch_size, image_size=tuple(settings.image_size))


NETWORK_PARTS: dict[str, Callable[[Bench, DictConfig], tuple[list[Row], object]]] = {
    "train": _train,
    "infer": lambda bench, config: compare_networks(INFERENCE, bench, systems_of(config)),
    "loops": lambda bench, config: scale_rows(bench, config.loops.systems, {"loops": config.loops.counts}),
    "parts": lambda bench, config: part_rows(bench, config.step_parts.systems),
    "scale": _scale,
}
OTHER_PARTS: dict[str, Callable[..., list[Row]]] = {
    "masks": mask_rows,
    "coco_eval": coco_eval_rows,
    "index": index_rows,
    "data": data_rows,
    "memory": worker_memory_rows,
}


def print_table(rows: Sequence[Row], about: Config) -> None:
    """Prints the comparisons and what they ran on."""
    headings = ("comparison", "ours", "baseline", "ratio", "spread", "target")
    table = plain_table("Medians, in turns", headings, names=1)
    for row in rows:
        amounts = [f"{amount:,.3f} {row.unit}" for amount in (row.ours, row.baseline)]
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
        spread = "–" if row.spread is None else f"{row.spread:.0%}"
        table.add_row(row.name, *amounts, ratio, spread, "–" if row.target is None else f"<= {row.target:.2f}")
    console = terminal()
    console.width = max(console.width, 0 if console.is_terminal else WIDTH)
    console.print(table)
    if noisy := sum((row.spread or 0) > NOISY for row in rows):
        console.print(f"{noisy} ratios spread by more than {NOISY:.0%}: take a quieter machine or more repetitions")
    for name, value in about.items():
        console.print(f"{name}: {value}", soft_wrap=True, markup=False)
