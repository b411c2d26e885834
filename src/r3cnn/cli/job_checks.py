"""Refuses a training run that cannot work, before anything is launched, read or written."""

from __future__ import annotations

import copy
import difflib
import json
import logging
import math
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.strategies import StrategyRegistry
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r3cnn.cli.configs import fill_classes, plain
from r3cnn.cli.errors import message_for_user
from r3cnn.cli.jobs import AUTO
from r3cnn.cli.parts import build_callbacks, build_data, build_trainer, evaluation_options, num_devices
from r3cnn.cli.settings import MOST_RANKS, check_settings
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.data.samplers import used_batches
from r3cnn.detector import RCNN
from r3cnn.evaluation.roi_report import roi_report, roi_scalars
from r3cnn.evaluation.roi_statistics import RoiStatistics
from r3cnn.names import metric_key
from r3cnn.schedule import LoopSchedule
from r3cnn.training.build import SettingError, build
from r3cnn.training.checkpoint import build_shapes
from r3cnn.training.module import TrainingSettings
from r3cnn.training.optim import MultiStepSchedule, OptimizerSettings
from r3cnn.training.rank_checks import check_loss_scaling, check_sync_batch_norm
from r3cnn.training.roi_log import evaluation_thresholds
from r3cnn.training.wandb_report import ap_names
from r3cnn.training.wandb_run import RunFacts

UNLIMITED = -1
DEVICE_NAMES = re.compile(r"[1-9]\d*|\d+(,\d+)+,?|\d+,")  # a number of devices, or their indices: 2 or 0,1
LIMITS = ("trainer.max_steps", "trainer.max_epochs")
ON_ONE_CPU = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}  # for the check, wherever it runs
LARGEST_CLOCK = 60**4  # YAML reads 12:00:00:00 without quotes as a number to the base of 60
MOST_PARAMETERS = 10**10  # of a network
METRICS = ("val/mask_ap", "val/box_ap", "train/loss")
UNKNOWN_CLASS = "unknown"  # until the annotations are read


def check_job(config: DictConfig) -> None:
    """Checks everything that can be known without data, weights and devices.

    Args:
        config: Composed configuration of one run, without Hydra's part; it is not changed.

    Raises:
        ValueError: For what cannot work, naming the key, its value and what is expected there.
    """
    config = copy.deepcopy(config)
    check_settings(config, "train")
    if OmegaConf.select(config, "data.classes") is None:  # they come from the annotations, which are not read yet
        OmegaConf.update(config, "data.classes", [UNKNOWN_CLASS])
        if config.num_classes < 1:
            raise ValueError(f"num_classes is {config.num_classes}: a whole number >= 1 is needed")
        OmegaConf.update(config, "data.classes", [f"{UNKNOWN_CLASS}{n}" for n in range(config.num_classes)])
    try:
        _check_devices(OmegaConf.select(config, "trainer.devices"))
        _check_end(config)
        build(plain(config.recursion), LoopSchedule, "recursion")
        _check_plugin(config)
        network = _check_parts(config)
        with _silence():
            _check_trainer(config)
            _check_monitors(config, network)
    except OmegaConfBaseException as error:  # such as a path of the data that nobody gave; it names the key
        raise ValueError(message_for_user(error)) from error


def check_call() -> None:
    """Refuses a single run whose configuration asks for a sweep, which would silently be its first row or none.

    Raises:
        ValueError: With the parameters of the sweep.
    """
    hydra = HydraConfig.get()
    params = hydra.sweeper.get("params")
    is_asked_for = any(word.startswith("hydra.mode=") for word in sys.argv)  # as a launcher does; Hydra adds it always
    if hydra.mode == RunMode.RUN and params and not is_asked_for:
        raise ValueError(
            f"hydra.sweeper.params is {dict(params)}, but this is a single run: `r3cnn train -m …`, or hydra.mode: "
            "MULTIRUN beside it as in conf/sweep/table1.yaml"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_devices(devices: object) -> None:
    if OmegaConf.is_list(devices):
        indices = list(devices) if isinstance(devices, Sequence) else []
        is_fine = bool(indices) and all(isinstance(each, int) and each >= 0 for each in indices)
        is_fine = is_fine and len(set(indices)) == len(indices)
    elif isinstance(devices, str):
        is_fine = devices == AUTO or DEVICE_NAMES.fullmatch(devices) is not None
    else:
        is_fine = isinstance(devices, int) and not isinstance(devices, bool) and 1 <= devices <= MOST_RANKS
    if not is_fine:
        raise ValueError(
            f"trainer.devices is {devices!r}: auto, a number of devices >= 1, or a list of their indices is needed"
        )


def _check_end(config: DictConfig) -> None:
    """Steps and epochs are positive, and one of the limits ends the run."""
    time = config.trainer.max_time
    if _is_number(time):
        clock = ":".join(f"{int(time) // 60**power % 60:02}" for power in (3, 2, 1, 0))
        meant = f", such as '{clock}', which YAML reads as that number" if 60 <= time < LARGEST_CLOCK else ""
        raise ValueError(f"trainer.max_time is {time}: DD:HH:MM:SS in quotes is needed{meant}")
    values = {key: OmegaConf.select(config, key) for key in LIMITS}
    if zero := next((key for key, value in values.items() if value == 0), None):
        raise ValueError(f"{zero} is 0: a whole number >= 1 is needed, or -1 for no limit")
    if all(value in (None, UNLIMITED) for value in values.values()) and config.trainer.max_time is None:
        given = " and ".join(f"{key} is {value}" for key, value in values.items())
        raise ValueError(f"{given}: the run would never end; one of them or trainer.max_time is needed")


def _check_plugin(config: DictConfig) -> None:
    if config.backbone_plugin.changes and "block_changes" not in config.backbone:
        changes = [str(change.get("_target_")) for change in config.backbone_plugin.changes]
        raise ValueError(
            f"backbone_plugin changes the blocks of a ResNet ({', '.join(changes)}), but backbone is "
            f"{config.backbone.get('_target_')}: backbone_plugin=none, or one of backbone=resnet… is needed"
        )


def _check_parts(config: DictConfig) -> RCNN:
    """What checks itself when it is built: the data, the optimizer, and the network, of which only shapes are built."""
    optimizer = build(plain(config.optimizer), OptimizerSettings, "optimizer")
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    try:
        optimizer.factory([parameter], lr=optimizer.lr).step(lambda: 0.0)
    except SettingError:
        raise
    except Exception as error:  # an optimizer may be the user's own
        raise ValueError(f"optimizer.factory: {type(error).__name__}: {error}") from error
    if not parameter.isfinite():
        raise ValueError("optimizer.factory: its first step makes weights that are not finite numbers")
    schedule = build(plain(config.lr_schedule), MultiStepSchedule, "lr_schedule")
    has_length = any(OmegaConf.select(config, key) not in (None, UNLIMITED) for key in LIMITS)
    schedule.multiplier(1, 1 if has_length else math.inf)
    TrainingSettings(optimizer, schedule, config.data.batch_size, config.seed, config.backward)
    if config.data.train is None:
        raise ValueError("data.train is null: images to learn from are needed; data.val alone may be null")
    data = build(plain(config.data), CocoDataModule, "data")
    evaluation_options(config.evaluation)
    network = _network(json.dumps(plain(config.model)))
    if network.num_classes != len(data.classes):
        raise ValueError(
            f"num_classes is {network.num_classes}: data.classes has {len(data.classes)} names, as many are needed"
        )
    return network


@lru_cache(maxsize=32)
def _network(model: str) -> RCNN:
    """Shapes of a network, which the jobs of a sweep share as far as they can."""
    network = build_shapes(json.loads(model), trusted=None)
    if (count := sum(parameter.numel() for parameter in network.parameters())) > MOST_PARAMETERS:
        raise ValueError(f"model has {count:.1e} parameters: at most {MOST_PARAMETERS:.0e} are possible")
    return network


@contextmanager
def _silence() -> Iterator[None]:
    """What is built for a check says nothing; it will when it is built for the run."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _check_trainer(config: DictConfig) -> None:
    """Builds trainer, callbacks and loggers for one CPU: none of them touches a file or a device before it is used.

    Raises:
        ValueError: For what they refuse.
    """
    settings = config.trainer
    accelerators = ["auto", "gpu", *AcceleratorRegistry.available_accelerators()]
    strategies = ["auto", *StrategyRegistry.available_strategies()]
    for key, known in (("accelerator", accelerators), ("strategy", strategies)):
        if isinstance(settings[key], str) and settings[key] not in known:
            raise ValueError(f"trainer.{key} is {settings[key]!r}: {_choice(settings[key], known)}")
    ranks = num_devices(plain(settings)) * settings.num_nodes
    check_sync_batch_norm(_network(json.dumps(plain(config.model))), settings.accelerator, ranks)
    check_loss_scaling(config.backward, {"16": "16-mixed"}.get(str(settings.precision), str(settings.precision)))
    trial = copy.deepcopy(config)
    OmegaConf.update(trial, "trainer", ON_ONE_CPU)
    trainer = build_trainer(trial, RunFacts(), LightningEnvironment())
    for timer in (callback for callback in trainer.callbacks if isinstance(callback, Timer)):  # type: ignore[attr-defined]
        if (left := timer.time_remaining()) is not None and left <= 0:
            raise ValueError(f"trainer.max_time is {settings.max_time!r}: more than no time is needed")


def _choice(value: str, known: Sequence[str], examples: Sequence[str] = ()) -> str:
    close = difflib.get_close_matches(value, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"one such as {', '.join(examples or known)} is needed"


def _check_monitors(config: DictConfig, network: RCNN) -> None:
    """What a callback waits for must be logged, and go the way that the callback takes for better.

    Raises:
        ValueError: Unless it is; nothing is said where a callback of the user's own may log it.
    """
    callbacks = build_callbacks(config)
    names = logged_names(network, config.data.classes)
    is_validated = config.data.val is not None and config.trainer.limit_val_batches != 0
    knows_all = all(_is_known(callback) for callback in callbacks.values())
    for key, callback in callbacks.items():
        monitor, mode = getattr(callback, "monitor", None), getattr(callback, "mode", None)
        if not isinstance(callback, EarlyStopping | ModelCheckpoint) or monitor is None:
            continue
        has_unknown_class = monitor.startswith("val/class/") and config.data.classes[0] == f"{UNKNOWN_CLASS}0"
        if monitor not in names and knows_all and not has_unknown_class:
            raise ValueError(
                f"callbacks.{key}.monitor is {monitor!r}, which nothing logs: {_choice(monitor, [*names], METRICS)}"
            )
        if isinstance(callback, EarlyStopping) and monitor.startswith("val/") and not is_validated:
            raise ValueError(f"callbacks.{key}.monitor is {monitor!r}, but this run has no validation")
        if (better := names.get(monitor, mode)) is not None and better != mode:
            raise ValueError(f"callbacks.{key}.mode is {mode}: {monitor} is better the other way, {better} is needed")


def _is_known(callback: Callback) -> bool:
    return isinstance(callback, EarlyStopping | ModelCheckpoint) or type(callback).__module__.startswith("r3cnn.")


def logged_names(network: RCNN, classes: Sequence[str]) -> dict[str, str | None]:
    """Names of all that a training run logs, with ``max`` or ``min``, whichever is better, or None for neither."""
    schedule, size = network.schedule, network.num_classes
    names: dict[str, str | None] = dict.fromkeys(
        (
            "epoch",
            "step",
            "train/lr",
            "memory/peak_gib",
            "speed/train_images_per_second",
            "speed/eval_images_per_second",
        )
    )
    for split, thresholds in (("train", schedule.iou_thresholds), ("val", evaluation_thresholds(schedule))):
        counts = RoiStatistics(size, thresholds, network.roi_heads.crowd_iof).counts()
        report = roi_report(counts, thresholds, [str(label) for label in range(size)])
        names |= {f"{split}/{name}": None for name in roi_scalars(report)}
    losses = (f"train/{kind}{name}" for kind in ("", "weighted/") for name in network.loss_weights())
    names |= dict.fromkeys(("train/loss", *losses), "min")
    of_classes = (f"val/class/{metric_key(name)}/{kind}_ap" for name in classes for kind in ("box", "mask"))
    return names | dict.fromkeys((*ap_names(len(schedule.eval_heads)), *of_classes), "max")


def check_gpus(config: DictConfig) -> None:
    """Refuses more GPUs than this machine shows, for a run that is to start here.

    Raises:
        ValueError: With their number.
    """
    settings = plain(config.trainer)
    is_on_gpus = settings["accelerator"] in ("gpu", "cuda") and not torch.backends.mps.is_available()
    if is_on_gpus and (wanted := num_devices(settings)) > (count := torch.cuda.device_count()):
        raise ValueError(
            f"trainer.accelerator is {settings['accelerator']} and trainer.devices is {settings['devices']}: "
            f"{wanted} GPUs are needed, there are {count} here"
        )


def check_lengths(config: DictConfig) -> None:
    """Refuses shares of an epoch that are no batch and intervals longer than one, if its images are there or counted.

    Args:
        config: Configuration of a run, checked by `check_job`.

    Raises:
        ValueError: For such a share or interval, or for annotations that cannot be used.
    """
    trainer, data = config.trainer, config.data
    limits = ("val_check_interval", "limit_train_batches", "limit_val_batches", "overfit_batches")
    if all(trainer[key] in (0, 1) for key in limits):
        return
    ranks = num_devices(plain(trainer)) * trainer.num_nodes
    drawn = OmegaConf.select(config, "data.prepare.train")
    train = val = 0  # not known
    if (Path(data.root).expanduser() / Path(data.train.annotations).expanduser()).is_file():
        filled = copy.deepcopy(config)
        fill_classes(filled)
        train, val = _num_batches(json.dumps({**plain(filled.data), "seed": 0}), ranks)
    elif isinstance(drawn, int):
        train = max(1, math.ceil(drawn / data.batch_size) // ranks)
    keys = ("overfit_batches",) * 2 if trainer.overfit_batches > 0 else ("limit_train_batches", "limit_val_batches")
    used, _ = (used_batches(each, trainer[key], f"trainer.{key}") for key, each in zip(keys, (train, val), strict=True))
    interval, is_used = trainer.val_check_interval, trainer.limit_val_batches != 0 and data.val is not None
    counts_in_epoch = trainer.check_val_every_n_epoch is not None and not trainer.fast_dev_run
    if isinstance(interval, int) and interval > used > 0 and counts_in_epoch and is_used:
        raise ValueError(
            f"trainer.val_check_interval is {interval}, an epoch has {used} batches: a share such as 1.0 is needed, "
            "or trainer.check_val_every_n_epoch=null, which counts batches over all epochs"
        )


@lru_cache(maxsize=32)
def _num_batches(data: str, ranks: int) -> tuple[int, int]:
    return build_data(json.loads(data), trusted=None).num_batches(ranks)
