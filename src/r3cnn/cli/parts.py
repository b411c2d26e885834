"""The parts of a run that several commands build from their configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import lightning
from lightning.fabric.utilities import rank_zero_only
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from r3cnn.cli.configs import plain
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.training.build import instantiate

Part = TypeVar("Part")
METRIC = "r3cnn.evaluation.coco_ap.CocoAP"


def checked(part: object, kind: type[Part], name: str) -> Part:
    """``part`` itself, once it is known to be a ``kind``.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(part, kind):
        raise ValueError(f"{name}._target_ builds a {type(part).__name__}, a {kind.__name__} is needed")
    return part


def build_data(config: Mapping[str, object], trusted: Sequence[str] | None) -> CocoDataModule:
    """The data module; it makes and reads its files when they are first needed."""
    return checked(instantiate(config, trusted), CocoDataModule, "data")


def build_metric(config: Mapping[str, object], data: CocoDataModule) -> CocoAP:
    """The metric against the validation file of ``data``, which is read now, less the records that ``data`` skips."""
    rejected = data.val_rejected
    from_data = {
        "annotations": data.val_annotations,
        "category_ids": data.category_ids,
        "classes": data.classes,
        "rejected_images": rejected.images,
        "rejected_annotations": rejected.annotations,
    }
    return checked(instantiate({"_target_": METRIC, **config, **from_data}), CocoAP, "evaluation")


def build_trainer(config: DictConfig) -> lightning.Trainer:
    """Lightning's trainer with the callbacks and loggers of the configuration, those there are."""
    callbacks = [
        checked(instantiate(plain(node)), Callback, f"callbacks.{name}")
        for name, node in config.get("callbacks", {}).items()
    ]
    loggers = [
        checked(instantiate(plain(node)), Logger, f"logger.{name}")  # type: ignore[type-abstract]
        for name, node in config.get("logger", {}).items()
    ]
    parts = {"callbacks": callbacks, "logger": loggers}
    return checked(instantiate({**plain(config.trainer), **parts}), lightning.Trainer, "trainer")


@rank_zero_only
def save_config(config: Mapping[str, object], path: Path) -> None:
    """Writes a resolved configuration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(dict(config)), path)
