"""What Weights & Biases is told about a run before it begins and when it is over."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import lightning
from omegaconf import DictConfig

from r3cnn.cli.configs import Config, plain
from r3cnn.cli.jobs import job_name
from r3cnn.cli.shown import examples_with_loops
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.evaluation.metrics import EvaluationResult
from r3cnn.run_files import (
    BEST,
    CHECKPOINTS,
    CONFIG,
    LAST,
    LOOPS,
    PICTURES,
    ROIS,
    TRAINING_ROIS,
    picture_file,
    read_config,
)
from r3cnn.schedule import LoopSchedule
from r3cnn.training.module import EvaluationModule, flat_ap
from r3cnn.training.wandb_report import LOOP, roi_report_of
from r3cnn.training.wandb_run import STEP, RunFacts, WandbMedia, WandbRun, schedule_tags

KEPT = (BEST, LAST)


def training_facts(config: DictConfig, schedule: LoopSchedule, *, is_continued: bool) -> RunFacts:
    """What is known of a training run.

    Args:
        config: Settled configuration of the run.
        schedule: Its loops.
        is_continued: Whether it goes on from a checkpoint.
    """
    experiment = job_name()
    scale, sweep = config.get("scale_name"), config.get("sweep_name")
    return RunFacts(
        job_type="train",
        name=f"{experiment}-seed{config.seed}",
        group=group_of(experiment, scale, sweep),
        tags=(*(str(tag) for tag in (experiment, scale, sweep) if tag), *schedule_tags(schedule)),
        config={**plain(config), "experiment": experiment},
        is_continued=is_continued,
    )


def evaluation_facts(config: DictConfig, schedule: LoopSchedule) -> RunFacts:
    """What is known of an evaluation; where its checkpoint lies in a run's folder, that run says what it belongs to.

    Args:
        config: Settled configuration of the evaluation.
        schedule: Its loops.
    """
    folder = Path(config.checkpoint).absolute().parent.parent
    origin: Config = {}
    with suppress(OSError, ValueError):  # none, or another program's
        origin = read_config(folder / CONFIG)
    scale, sweep = (None if origin.get(key) is None else str(origin[key]) for key in ("scale_name", "sweep_name"))
    return RunFacts(
        job_type="evaluate",
        name=f"{folder.name}-evaluated",
        group=group_of(folder.name, scale, sweep),
        tags=(*(str(tag) for tag in (folder.name, scale, sweep) if tag), *schedule_tags(schedule)),
        config=plain(config),
    )


def group_of(name: str, scale: str | None, sweep: str | None) -> str:
    """The table that a run is a row of, else its scale and name."""
    return sweep or "-".join(dict.fromkeys(part for part in (scale, name) if part))


def report_outcome(
    trainer: lightning.Trainer,
    module: EvaluationModule,
    data: CocoDataModule,
    result: EvaluationResult,
    output_dir: Path,
) -> None:
    """Sends the outcome and ends the run; nothing on ranks other than 0 or without a run. A failure is but said.

    Args:
        trainer: The trainer of the run.
        module: What it trained or evaluated.
        data: What it did so with.
        result: The outcome.
        output_dir: Folder of the run, with its pictures and checkpoints.
    """
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, WandbRun):
            with left_out_on_error("what is left to tell Weights & Biases"):
                _report(logger, trainer, module, data, result, output_dir)


def _report(
    logger: WandbRun,
    trainer: lightning.Trainer,
    module: EvaluationModule,
    data: CocoDataModule,
    result: EvaluationResult,
    output_dir: Path,
) -> None:
    from r3cnn.reporting.wandb_media import checkpoints_of, class_table, loop_table

    run, precision = logger.experiment, _precision(result)
    run.summary.update(precision)
    for row in _rows_by_loop(trainer, result):
        run.log(row)
    tables = {"tables/ap_per_class": class_table(result.metrics), "tables/ap_per_loop": loop_table(result.metrics)}
    pictures = _pictures(logger.media, module, data, output_dir)
    logger.log_once({**tables, **pictures, STEP: trainer.global_step})
    if logger.media.checkpoints:
        files = [output_dir / CHECKPOINTS / name for name in KEPT]
        run.log_artifact(checkpoints_of(f"checkpoints-{run.id}", files, precision))
    run.finish()


def _precision(result: EvaluationResult) -> dict[str, float]:
    """All defined AP of the final weights; those of classes stand in a table."""
    found = flat_ap(result.metrics)
    return {f"final/{name}": ap for name, ap in found.items() if not math.isnan(ap) and not name.startswith("class/")}


def _rows_by_loop(trainer: lightning.Trainer, result: EvaluationResult) -> Iterator[dict[str, float]]:
    """AP and RoI balance after each loop, for curves over the loops."""
    reports = {"train": roi_report_of(trainer, TRAINING_ROIS), "val": roi_report_of(trainer, ROIS)}
    for loop, values in result.metrics["loops"].items():
        row: dict[str, float | None] = {f"{kind}_ap": values[kind]["ap"] for kind in ("box", "mask")}
        for split, report in reports.items():
            if report is not None and loop in report["loops"]:
                row[f"roi_balance_{split}"] = report["loops"][loop]["balance"]
        yield {LOOP: int(loop), **{f"by_loop/{name}": value for name, value in row.items() if value is not None}}


def _pictures(media: WandbMedia, module: EvaluationModule, data: CocoDataModule, output_dir: Path) -> dict[str, object]:
    """Overlays and strips of the first images, panels of the last loop of fewer of them."""
    from r3cnn.reporting.wandb_media import panel_of, pictures_of

    least, classes, pictures = media.score_threshold, data.classes, dict[str, object]()
    for number, (example, loops) in enumerate(examples_with_loops(module, data, max(media.pictures, media.panels))):
        if number < media.pictures:
            strip = picture_file(output_dir / PICTURES, data.val_set.file_id(example.image_id), LOOPS)
            pictures |= pictures_of(
                example.image, loops, classes, image_id=example.image_id, score_threshold=least, strip=strip
            )
        if number < media.panels:
            panel = panel_of(example.image, loops[-1], example.target, classes, score_threshold=least)
            pictures[f"boxes_and_masks/{example.image_id}"] = panel
    return pictures
