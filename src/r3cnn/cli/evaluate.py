"""``r3cnn evaluate``: scores a checkpoint after every loop, with as many loops as asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import lightning
from omegaconf import DictConfig, OmegaConf

from r3cnn.cli.configs import Config, path_of, plain, settle
from r3cnn.cli.dashboard import evaluation_facts, report_outcome
from r3cnn.cli.earlier_run import refuse_used
from r3cnn.cli.modes import set_modes
from r3cnn.cli.outcome import (
    CONFIG_FILE,
    keep_evaluated,
    keep_training_config,
    remove_evaluation,
    show_outcome,
    write_outcome,
)
from r3cnn.cli.parts import build_data, build_metric, build_trainer, evaluation_options, save_config
from r3cnn.names import composed
from r3cnn.training.build import trusted_targets
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing, restore_model
from r3cnn.training.module import EvaluationModule
from r3cnn.training.roi_log import VALIDATION_FILE, RoiLog


def run(config: DictConfig) -> None:
    """Evaluates one checkpoint."""
    trusted = config.trusted_packages
    checkpoint = path_of(config, "checkpoint")
    model, info = restore_model(checkpoint, trusted)
    set_modes(model, config)
    is_own_data = config.get("data") is not None
    _reuse_missing_train_split(config)
    output_dir = settle(config, known_classes=info.classes)
    data_config = data_for(info, plain(config.data) if is_own_data else with_own_cache(info.data), config)
    lightning.seed_everything(config.seed, verbose=False)

    if not is_own_data:
        check_drawing_folder(data_config)
    data = build_data(data_config, None if is_own_data else trusted_targets(trusted))
    preprocessing = Preprocessing(data.mean, data.std, data.image_size, data.reader.image_range)
    module = EvaluationModule(model, build_metric(plain(config.evaluation), data), preprocessing)
    module.options = evaluation_options(config.evaluation)
    trainer = build_trainer(config, evaluation_facts(config, model.schedule))
    if trainer.limit_val_batches == 0:
        raise ValueError("trainer.limit_val_batches is 0, with which nothing is evaluated")
    data.val_sampler(
        data.val_set, 0, 1, trainer.limit_val_batches
    )  # refuses less than one batch before anything is touched
    if checkpoint.resolve().parent != (output_dir / "checkpoints").resolve():  # the run's own folder is a usual one
        refuse_used(output_dir, "evaluate")
    trainer.validate(module, datamodule=data, verbose=False)
    if module.result is None:
        raise RuntimeError("Lightning has evaluated nothing")
    if trainer.is_global_zero:
        just_written = [each.folder / VALIDATION_FILE for each in trainer.callbacks if isinstance(each, RoiLog)]  # type: ignore[attr-defined]
        remove_evaluation(output_dir, but=just_written)
        keep_training_config(output_dir)
        save_config({**plain(config), "data": data_config, "model": dict(info.model)}, output_dir / CONFIG_FILE)
        keep_evaluated(checkpoint, output_dir)
        write_outcome(module.result, module, output_dir)
        show_outcome(module.result, module, data, output_dir, config.pictures)
        report_outcome(trainer, module, data, module.result, output_dir)


def data_for(info: CheckpointInfo, data: Mapping[str, object], config: DictConfig) -> Config:
    """The data set's configuration with the checkpoint's preprocessing and label order.

    Args:
        info: What the checkpoint says.
        data: Resolved configuration of the data set to evaluate on.
        config: Configuration of the command, whose ``image_size``, ``eval_batch_size`` and ``workers`` win.

    Raises:
        ValueError: When the data set has other classes than the network.
    """
    classes = data["classes"]
    found = {composed(str(name)) for name in classes} if isinstance(classes, list) else set()
    expected = {*map(composed, info.classes)}
    if found != expected:
        raise ValueError(
            f"the data set has other classes than the checkpoint: only in the data set {sorted(found - expected)}, "
            f"only in the checkpoint {sorted(expected - found)}; a network finds only the classes that it learnt"
        )
    preprocessing = info.preprocessing
    settled: Config = {
        **data,
        "classes": list(info.classes),
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "image_size": list(config.image_size or preprocessing.image_size),
        "image_range": data.get("image_range") or (preprocessing.image_range and list(preprocessing.image_range)),
    }
    for key in ("eval_batch_size", "workers"):
        if config[key] is not None:
            settled[key] = config[key]
    return settled


def cache_folder() -> Path:
    """What this machine keeps between runs."""
    return Path(os.environ.get("R3CNN_CACHE", "~/.cache/r3cnn")).expanduser().resolve()


def with_own_cache(data: Mapping[str, object]) -> Config:
    """A checkpoint's data set with the index cache of this machine, not of the one that it was trained on."""
    return {**data, "index_cache": str(cache_folder() / "indices")} if data.get("index_cache") else {**data}


def check_drawing_folder(data: Mapping[str, object]) -> None:
    """Lets a checkpoint's data set be drawn into the cache alone; one that is there already may lie anywhere.

    Raises:
        ValueError: When the folder is missing and lies elsewhere.
    """
    prepare = data.get("prepare")
    if not isinstance(prepare, Mapping):
        return
    folder = Path(str(prepare.get("folder"))).expanduser().resolve()
    cache = cache_folder()
    if not folder.exists() and cache not in folder.parents:
        raise ValueError(
            f"the checkpoint's data set would be drawn into {folder}, outside the cache {cache}: say data=shapes with "
            "its data.prepare values to draw it anew"
        )


def _reuse_missing_train_split(config: DictConfig) -> None:
    """Lets `data=custom` be evaluated without training images: nothing of them is read."""
    data = config.get("data")
    if data is None or data.get("val") is None or "train" not in data:
        return
    for key in ("images", "annotations"):
        if OmegaConf.is_missing(data.train, key):
            OmegaConf.update(config, f"data.train.{key}", data.val[key])
