"""Refuses a training run that cannot work, before anything is launched, read or written."""

from __future__ import annotations

import copy
import math
import re
import sys
from collections.abc import Mapping, Sequence

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r3cnn.cli.configs import plain
from r3cnn.cli.errors import message_for_user
from r3cnn.cli.parts import checked, evaluation_options
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.training.build import instantiate
from r3cnn.training.checkpoint import build_model
from r3cnn.training.optim import MultiStepSchedule, OptimizerSettings

LARGEST_SEED = 2**32 - 1  # that numpy takes
UNLIMITED = -1
AUTO = "auto"
DEVICE_NAMES = re.compile(r"[1-9]\d*|\d+(,\d+)+,?|\d+,")  # a number of devices, or their indices: 2 or 0,1
AT_LEAST_ONE = (
    "trainer.num_nodes",
    "trainer.accumulate_grad_batches",
    "trainer.log_every_n_steps",
    "data.batch_size",
    "data.eval_batch_size",
    "evaluation.max_detections",
    "rois_per_image",
    "channels",
    "fc_channels",
)
LIMITS = ("trainer.max_steps", "trainer.max_epochs")
SHARES = ("trainer.limit_train_batches", "trainer.limit_val_batches", "trainer.val_check_interval")
LOOP_LISTS = {"heads": int, "eval_heads": int, "iou_thresholds": float, "loss_weights": float}


def check_job(config: DictConfig) -> None:
    """Checks everything that can be known without data, weights and devices.

    Args:
        config: Composed configuration of one run, without Hydra's part; it is not changed.

    Raises:
        ValueError: For what cannot work, naming the key, its value and what is expected there.
    """
    config = copy.deepcopy(config)
    if OmegaConf.select(config, "data.classes") is None:  # they come from the annotations, which are not read yet
        OmegaConf.update(config, "data.classes", ["unknown"])
    try:
        _check_numbers(config)
        _check_devices(OmegaConf.select(config, "trainer.devices"))
        _check_end(config)
        _check_loops(plain(config.recursion))
        _check_plugin(config)
        _check_parts(config)
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


def _check_numbers(config: DictConfig) -> None:
    _check_whole("seed", config.seed, 0, LARGEST_SEED)
    _check_whole("pictures", config.pictures, 0)
    for key in AT_LEAST_ONE:
        _check_whole(key, OmegaConf.select(config, key), 1)
    for key in SHARES:
        value = OmegaConf.select(config, key)
        if not _is_number(value) or value <= 0 or (isinstance(value, float) and value > 1):
            raise ValueError(f"{key} is {value!r}: a number of batches >= 1 or a share in (0, 1] is needed")
    length = config.training_length
    if not (_is_number(length) and 0 < length < math.inf):
        raise ValueError(f"training_length is {length!r}: a factor above 0 is needed, such as 3")


def _check_whole(key: str, value: object, least: int, largest: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= largest:
        bounds = f">= {least}" if largest == math.inf else f"in [{least}, {largest}]"
        raise ValueError(f"{key} is {value!r}: a whole number {bounds} is needed")


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
        is_fine = isinstance(devices, int) and not isinstance(devices, bool) and devices >= 1
    if not is_fine:
        raise ValueError(
            f"trainer.devices is {devices!r}: auto, a number of devices >= 1, or a list of their indices is needed"
        )


def _check_end(config: DictConfig) -> None:
    """Steps and epochs are positive, and one of the limits ends the run."""
    values = {key: OmegaConf.select(config, key) for key in LIMITS}
    for key, value in values.items():
        if value not in (None, UNLIMITED) and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{key} is {value!r}: a whole number >= 1 is needed, or -1 for no limit")
    if all(value in (None, UNLIMITED) for value in values.values()) and config.trainer.max_time is None:
        given = " and ".join(f"{key} is {value}" for key, value in values.items())
        raise ValueError(f"{given}: the run would never end; one of them or trainer.max_time is needed")


def _check_loops(recursion: Mapping[str, object]) -> None:
    """The lists are lists of numbers; how they fit together is checked by the schedule itself."""
    for name, kind in LOOP_LISTS.items():
        values = recursion.get(name, [])
        wanted = "head indices such as [0,0,0]" if kind is int else "numbers such as [0.5,0.6,0.7]"
        if not isinstance(values, list) or not all(_is_number(value) for value in values):
            raise ValueError(f"recursion.{name} is {values!r}: a list of {wanted} is needed, one for each loop")
    _build("recursion", recursion)


def _check_plugin(config: DictConfig) -> None:
    if config.backbone_plugin.changes and "block_changes" not in config.backbone:
        changes = [str(change.get("_target_")) for change in config.backbone_plugin.changes]
        raise ValueError(
            f"backbone_plugin changes the blocks of a ResNet ({', '.join(changes)}), but backbone is "
            f"{config.backbone.get('_target_')}: backbone_plugin=none, or one of backbone=resnet… is needed"
        )


def _check_parts(config: DictConfig) -> None:
    """What checks itself when it is built: the data, the optimizer, and the network, of which only shapes are built."""
    checked(_build("optimizer", plain(config.optimizer)), OptimizerSettings, "optimizer")
    checked(_build("lr_schedule", plain(config.lr_schedule)), MultiStepSchedule, "lr_schedule")
    data = checked(_build("data", plain(config.data)), CocoDataModule, "data")
    try:
        evaluation_options(config.evaluation)
    except ValueError as error:
        raise ValueError(f"evaluation: {error}") from error
    with torch.device("meta"):
        network = build_model(plain(config.model), trusted=None)
    if network.num_classes != len(data.classes):
        raise ValueError(
            f"num_classes is {network.num_classes}: data.classes has {len(data.classes)} names, as many are needed"
        )


def _build(key: str, node: Mapping[str, object]) -> object:
    try:
        return instantiate(node)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
