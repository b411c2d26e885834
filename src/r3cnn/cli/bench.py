"""``r3cnn bench``: how long ours takes, or how much memory, beside others that do the same work."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig

from r3cnn.benchmarks.coco_run import CocoRun
from r3cnn.benchmarks.inference import inference_rows
from r3cnn.benchmarks.loops import loop_rows
from r3cnn.benchmarks.parts import part_rows
from r3cnn.benchmarks.real_data import RealData, real_data_rows
from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.scale import scale_rows
from r3cnn.benchmarks.setting import Bench
from r3cnn.benchmarks.timing import machine
from r3cnn.benchmarks.training import training_rows
from r3cnn.cli.bench_setting import ALL, bench_of, data_of, pair, sweeps_of, systems_of
from r3cnn.cli.configs import Config, plain
from r3cnn.cli.parts import checked
from r3cnn.reporting.console import terminal
from r3cnn.training.build import instantiate

FORMATS = ("table", "json")
MEASURED = "measured"  # figures behind the rows, too many for the screen
WIDTH = 160  # of a table that does not go to a terminal
PartRows = tuple[list[Row], dict[str, object]]


def run(config: DictConfig) -> None:
    """Times the part asked for and prints a table or one JSON object."""
    known = (ALL, *NETWORK_PARTS, *config.parts)
    for name, allowed in (("format", FORMATS), ("part", known), ("size", tuple(config.sizes))):
        if config[name] not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {config[name]!r}")
    rows, about = other_rows(config) if config.part in config.parts else network_rows(config)
    if config.format == "json":
        print(json.dumps({"rows": [row.to_dict() for row in rows], "machine": about}, allow_nan=False))
    else:
        print_table(rows, about)


def other_rows(config: DictConfig) -> tuple[list[Row], Config]:
    """Comparisons of a part that needs no network: what ``config.parts`` builds, a list of rows."""
    settings = plain(config.parts[config.part])
    workload = {name: value for name, value in settings.items() if name != "_target_"}
    return rows_of_part(settings, config.part), {**machine(torch.device("cpu")), "workload": workload}


def rows_of_part(settings: Config, part: str) -> list[Row]:
    """The rows that a node of ``config.parts`` builds."""
    found = checked(instantiate(settings), list, f"parts.{part}")
    return [checked(row, Row, f"parts.{part}") for row in found]


def network_rows(config: DictConfig) -> tuple[list[Row], Config]:
    """Comparisons of whole networks, of one part or of all; and what was measured behind the rows."""
    bench = bench_of(config)
    rows: list[Row] = []
    measured: Config = {}
    for part in NETWORK_PARTS if config.part == ALL else (config.part,):
        found, measured[part] = NETWORK_PARTS[part](bench, config)
        rows += found
    size = plain(config.sizes[config.size])
    workload: Config = {"size": config.size, "precision": bench.precisions, "batch_sizes": bench.batch_sizes, **size}
    return rows, {**machine(bench.device), "workload": workload, MEASURED: measured}


def _train(bench: Bench, config: DictConfig) -> PartRows:
    memory = config.sizes[config.size].memory
    rows, details = training_rows(
        bench,
        systems=systems_of(config),
        memory_shape=replace(bench.shape, batch_size=memory.batch_size, image_size=pair(memory.image_size)),
        memory_network=list(memory.network),
    )
    found, details["real_data"] = _from_files(bench, config)
    return [*rows, *found], details


def _from_files(bench: Bench, config: DictConfig) -> tuple[list[Row], str]:
    """Training steps on images from files, where they are asked for and there; and what became of it."""
    settings, about = config.sizes[config.size].real_data, data_of(config)
    if not settings.steps or not about.is_there:
        return [], about.note if settings.steps else "left out: sizes.*.real_data.steps is 0"
    split = replace(about.split, limit=settings.limit)
    data = RealData(split, pair(settings.image_size), settings.workers, settings.steps)
    effort = replace(bench.effort, repetitions=settings.repetitions, warmups=settings.warmups)
    bench = replace(bench, effort=effort)
    return [row for case in bench.cases() for row in real_data_rows(bench, case, data)], about.note


def _infer(bench: Bench, config: DictConfig) -> PartRows:
    return inference_rows(bench, systems=systems_of(config), one_image=config.sizes[config.size].one_image)


def _loops(bench: Bench, config: DictConfig) -> PartRows:
    loops = config.loops
    return loop_rows(
        bench,
        systems=list(loops.systems),
        counts=list(loops.counts),
        iou_thresholds=list(loops.iou_thresholds),
        loss_weights=list(loops.loss_weights),
    )


def _parts(bench: Bench, config: DictConfig) -> PartRows:
    rows, details = part_rows(bench, systems=list(config.step_parts.systems))
    details["data"] = data_of(config).note
    if data_of(config).is_there:
        rows += rows_of_part({**plain(config.parts.data), **plain(config.sizes[config.size].loading)}, "data")
    return rows, details


def _scale(bench: Bench, config: DictConfig) -> PartRows:
    settings, run = config.sizes[config.size].scale, config.scale.coco_run
    shape = replace(bench.shape, image_size=pair(settings.image_size), objects=settings.objects)
    return scale_rows(
        replace(bench, shape=shape, batch_sizes=(settings.batch_size,), own=(*bench.own, *settings.network)),
        system=config.scale.system,
        sweeps=sweeps_of(settings.sweeps),
        coco_run=CocoRun(run.images, run.epochs, tuple(run.gpus), run.efficiency),
        steps_file=None if config["from"] is None else Path(config["from"]),
    )


NETWORK_PARTS: dict[str, Callable[[Bench, DictConfig], PartRows]] = {
    "train": _train,
    "infer": _infer,
    "loops": _loops,
    "parts": _parts,
    "scale": _scale,
}


def print_table(rows: Sequence[Row], about: Config) -> None:
    """Prints the comparisons and what they ran on."""
    from rich.table import Table

    table = Table("comparison", title="Medians, in turns", title_justify="left")
    for heading in ("first", "second", "ratio", "target"):
        table.add_column(heading, justify="right")
    for row in rows:
        target = "–" if row.target is None else f"<= {row.target:.2f}"
        amounts = [f"{amount:,.3f} {row.unit}" for amount in (row.ours, row.peer)]
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, *amounts, ratio, target)
    console = terminal()
    console.width = max(console.width, 0 if console.is_terminal else WIDTH)
    console.print(table)
    for name, value in about.items():
        if name != MEASURED:
            console.print(f"{name}: {value}", soft_wrap=True)
