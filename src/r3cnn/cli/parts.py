"""The parts of a run that several commands build from their configuration."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import cast

import lightning
import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ProgressBar,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from omegaconf import DictConfig, OmegaConf

from r3cnn.cli.configs import Config, plain
from r3cnn.cli.rank_launcher import RankStrategy
from r3cnn.cli.ranks import check_tasks
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.ops.views import View
from r3cnn.training.build import SettingError, build, instantiate
from r3cnn.training.checkpoint_io import WholeFileCheckpointIO
from r3cnn.training.validation import EvaluationOptions
from r3cnn.training.wandb_report import WandbReport
from r3cnn.training.wandb_run import RunFacts, WandbRun

log = logging.getLogger(__name__)
NEVER = {
    BatchSizeFinder: "data.batch_size",
    LearningRateFinder: "optimizer.lr",
    GradientAccumulationScheduler: "trainer.accumulate_grad_batches",
    StochasticWeightAveraging: "callbacks=ema",
}
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
WANDB = "r3cnn.training.wandb_run.WandbRun"
MODEL_CHECKPOINT = "lightning.pytorch.callbacks.ModelCheckpoint"
OWN_CHECKPOINT = "r3cnn.training.checkpoint_io.{}"
VIEWS = "r3cnn.ops.views.views_of"
METRIC = "r3cnn.evaluation.coco_ap.CocoAP"
OPTIONS = ("score_fusions", "tta", "save_loops")  # of the evaluation group, for the module; the others are the metric's


def build_data(config: Mapping[str, object], trusted: Sequence[str] | None) -> CocoDataModule:
    """The data module; it makes and reads its files when they are first needed."""
    return build(config, CocoDataModule, "data", trusted)


def build_metric(config: Mapping[str, object], data: CocoDataModule) -> CocoAP:
    """The metric against the validation file of ``data``, which is read now, less the records that ``data`` skips.

    Raises:
        ValueError: If ``data`` has none.
    """
    from_data = {
        "annotations": data.val_annotations,
        "category_ids": data.category_ids,
        "classes": data.classes,
        "on_bad_annotation": data.on_bad_annotation,
        "max_overhang": data.max_overhang,
    }
    settings = {name: value for name, value in config.items() if name not in OPTIONS}
    return build({"_target_": METRIC, **settings, **from_data}, CocoAP, "evaluation")


def evaluation_options(config: DictConfig) -> EvaluationOptions:
    """What the evaluation group asks for beside the AP of every loop."""
    return EvaluationOptions(chosen_views(config), tuple(config.score_fusions), bool(config.save_loops))


def chosen_views(config: DictConfig) -> tuple[View, ...]:
    """The views of an image that the evaluation group asks for."""
    return cast(tuple[View, ...], instantiate({"_target_": VIEWS, **plain(config.tta)}, None, "evaluation.tta"))


def build_trainer(
    config: DictConfig, facts: RunFacts, environment: ClusterEnvironment | None = None
) -> lightning.Trainer:
    """Lightning's trainer with the callbacks and loggers of the configuration, those there are.

    Args:
        config: Settled configuration of the run.
        facts: What Weights & Biases is told of the run, where it takes part.
        environment: Who starts the ranks; None lets Lightning find out.

    Raises:
        ValueError: For a setting that Lightning refuses, by its key.
    """
    callbacks: list[Callback] = [*build_callbacks(config).values()]
    loggers = [build_logger(name, plain(node), facts) for name, node in chosen(config, "logger").items()]
    callbacks += [WandbReport(logger) for logger in loggers if isinstance(logger, WandbRun)]
    settings = plain(config.trainer)
    if (taken := next((key for key in ("callbacks", "logger", "plugins") if key in settings), None)) is not None:
        raise ValueError(
            f"trainer.{taken} is {settings[taken]!r}: callbacks.NAME and logger.NAME alone add to a trainer"
        )
    if environment is None:
        check_tasks(os.environ, num_devices(settings) * int(str(settings["num_nodes"])))
    if config.get("data") is not None and config.data.get("val", ()) is None:
        settings["limit_val_batches"] = 0
    for switch, kind in (("enable_checkpointing", Checkpoint), ("enable_progress_bar", ProgressBar)):
        if settings.get(switch) is True:  # else Lightning adds one of its own
            settings[switch] = any(isinstance(callback, kind) for callback in callbacks)
    plugins = [WholeFileCheckpointIO(), *([environment] if environment else [])]
    parts = {"callbacks": callbacks, "logger": loggers, "plugins": plugins, "strategy": strategy_of(settings)}
    if (profiler := settings.get("profiler")) in PROFILERS:  # else they print among the log lines
        parts["profiler"] = PROFILERS[str(profiler)](dirpath=config.output_dir, filename="profile")
    arguments = {**settings, **parts}
    try:
        trainer = build(arguments, lightning.Trainer, "trainer")
    except SettingError as error:
        key = next((key for key in settings if key != "_target_" and _is_cured(arguments, key)), None)
        if error.__cause__ is None or key is None:
            raise
        raise ValueError(f"trainer.{key} is {settings[key]!r}: {error.__cause__}") from error
    if settings.get("limit_val_batches") == 0:  # fast_dev_run and overfit_batches set a number of their own
        trainer.limit_val_batches = 0
    # It would end at SIGTERM without a word, and with status 0, or hang where ranks have their signals at other times.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def _is_cured(arguments: Config, key: str) -> bool:
    """Whether Lightning's trainer can be built from arguments without one of them."""
    try:
        instantiate({name: value for name, value in arguments.items() if name != key})
    except SettingError:
        return False
    return True


def build_callbacks(config: DictConfig) -> dict[str, Callback]:
    """The callbacks of the configuration by name, less those that the trainer is told to do without.

    Raises:
        ValueError: For a callback that refuses its settings, by its key, or that no run can have.
    """
    built: dict[str, Callback] = {}
    for name, node in chosen(config, "callbacks").items():
        built[name] = build(own_checkpoints(plain(node)), Callback, f"callbacks.{name}")
    writers: dict[str, str] = {}
    for name, callback in built.items():
        if (instead := next((key for kind, key in NEVER.items() if isinstance(callback, kind)), None)) is not None:
            raise ValueError(
                f"callbacks.{name}: a {type(callback).__name__} changes learning rate, batch or weights of a run under "
                f"way, which schedule, resuming and evaluation know nothing of: use {instead}"
            )
        if isinstance(callback, ModelCheckpoint) and callback.filename is not None:
            if os.sep in re.sub(r"{[^}]*}", "", callback.filename):
                raise ValueError(
                    f"callbacks.{name}.filename is {callback.filename!r}: a name without a folder is needed"
                )
            file = f"{callback.dirpath or ''}/{callback.filename}.ckpt"
            if (other := writers.setdefault(file, name)) != name:
                raise ValueError(
                    f"callbacks.{other} and callbacks.{name} would both write {file}: give one another name"
                )
    unwanted: list[type[Callback]] = []
    if config.trainer.get("enable_progress_bar") is False:
        unwanted.append(ProgressBar)
    if config.trainer.get("enable_checkpointing") is False:
        unwanted.append(Checkpoint)
    return {name: each for name, each in built.items() if not isinstance(each, tuple(unwanted))}


def own_checkpoints(callback: Config) -> Config:
    """A callback's node with ours for Lightning's checkpoints; several under one fixed name are told apart."""
    if callback["_target_"] != MODEL_CHECKPOINT:
        return callback
    is_fixed = "{" not in str(callback.get("filename") or "{")
    is_several = is_fixed and callback.get("save_top_k", 1) not in (0, 1)
    return {**callback, "_target_": OWN_CHECKPOINT.format("SeveralCheckpoints" if is_several else "ModelCheckpoint")}


def chosen(config: DictConfig, group: str) -> dict[str, DictConfig]:
    """The nodes of a group that build something.

    A node may be null, and where the group was taken away settings of its members may be left, such as a scale's.
    """
    found = {}
    for name, node in (config.get(group) or {}).items():
        if node is not None and not OmegaConf.is_dict(node):
            raise ValueError(f"{group}.{name} is {node!r}: settings below it are needed, or null")
        if node is not None and "_target_" in node:
            found[str(name)] = node
        elif node is not None:
            log.warning("%s.%s has no _target_ and is left out", group, name)
    return found


def strategy_of(settings: Config) -> object:
    """The trainer's ``strategy``; of several ranks, data parallel with gradients that lie in the buckets sent.

    The graph is the same in every step, since losses never miss a key, which lets more of the sending overlap with the
    backward pass. Accumulated gradients are not sent in the first step, from which the graph would be learnt.
    """
    wanted = settings["strategy"]
    if wanted not in ("auto", "ddp") or (num_devices(settings), settings["num_nodes"]) == (1, 1):
        return wanted
    return RankStrategy(gradient_as_bucket_view=True, static_graph=settings["accumulate_grad_batches"] == 1)


def num_devices(settings: Config) -> int:
    """Processes per node of a trainer with these ``devices`` and ``accelerator``; one, where only Lightning knows."""
    devices = settings["devices"]
    if devices in ("auto", -1, "-1"):
        return max(1, torch.cuda.device_count()) if settings["accelerator"] in ("auto", "gpu", "cuda") else 1
    if isinstance(devices, int) or str(devices).isdigit():
        return int(str(devices))
    return len(devices) if isinstance(devices, list) else str(devices).count(",") + 1


def build_logger(name: str, config: Config, facts: RunFacts) -> Logger:
    """One logger of a run.

    Raises:
        ValueError: If it refuses its settings.
    """
    known = {"facts": facts} if config.get("_target_") == WANDB else {}
    return build({**config, **known}, Logger, f"logger.{name}")  # type: ignore[type-abstract]
