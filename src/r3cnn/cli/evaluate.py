"""``r3cnn evaluate``: scores a checkpoint after every loop, with as many loops as asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import lightning
from omegaconf import DictConfig, OmegaConf

from r3cnn.cli.configs import Config, path_of, plain, settle
from r3cnn.cli.dashboard import evaluation_facts, report_outcome
from r3cnn.cli.earlier_run import refuse_unfinished, refuse_used
from r3cnn.cli.folder_lock import sole_writer
from r3cnn.cli.modes import set_modes
from r3cnn.cli.outcome import (
    keep_evaluated,
    keep_training_config,
    remove_evaluation,
    show_outcome,
    write_outcome,
)
from r3cnn.cli.parts import build_data, build_metric, build_trainer, evaluation_options
from r3cnn.data.shapes import write_shapes
from r3cnn.names import composed
from r3cnn.run_files import CHECKPOINTS, CONFIG, ROIS, write_config
from r3cnn.training.build import trusted_targets
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing, restore_model
from r3cnn.training.module import EvaluationModule
from r3cnn.training.roi_log import RoiLog

DRAWN = "r3cnn.data.shapes.write_shapes"
MAX_DRAWN = 2000  # images, in some seconds


def run(config: DictConfig) -> None:
    """Evaluates one checkpoint."""
    trusted = config.trusted_packages
    checkpoint = path_of(config, "checkpoint")
    model, info = restore_model(checkpoint, trusted)
    set_modes(model, config)
    is_own_data = config.get("data") is not None
    _reuse_missing_train_split(config)
    output_dir = settle(config, known_classes=info.classes)
    data_config = data_for(info, plain(config.data) if is_own_data else on_this_machine(info.data), config)
    lightning.seed_everything(config.seed, verbose=False)

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
    with sole_writer(output_dir):
        if checkpoint.resolve().parent != (output_dir / CHECKPOINTS).resolve():  # the run's own folder is a usual one
            refuse_used(output_dir, "evaluate")
        refuse_unfinished(output_dir)
        trainer.validate(module, datamodule=data, verbose=False)
        if module.result is None:
            raise RuntimeError("Lightning has evaluated nothing")
        if not trainer.is_global_zero:
            return
        just_written = [each.folder / ROIS for each in trainer.callbacks if isinstance(each, RoiLog)]  # type: ignore[attr-defined]
        remove_evaluation(output_dir, but=just_written)
        keep_training_config(output_dir)
        if not is_own_data:
            data_config["prepare"] = info.data.get("prepare")  # as a record of what was drawn
        write_config({**plain(config), "data": data_config, "model": dict(info.model)}, output_dir / CONFIG)
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
    if config.image_size is None:
        preprocessing.check_image_size()
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


def on_this_machine(data: Mapping[str, object]) -> Config:
    """A checkpoint's data set with what this machine has for it; nothing that makes files is taken from a checkpoint.

    Args:
        data: Its configuration. Where the files of a drawn set are missing, it is drawn into the cache.

    Raises:
        ValueError: When files are missing that another data set's own step would make, or that would take long to draw.
    """
    found: Config = {**data, "prepare": None}
    if isinstance(workers := data.get("workers"), int):
        found["workers"] = min(workers, len(os.sched_getaffinity(0)))
    if data.get("index_cache"):
        found["index_cache"] = str(cache_folder() / "indices")
    recipe, root = data.get("prepare"), Path(str(data.get("root"))).expanduser()
    if recipe is None or root.exists():
        return found
    recipe = recipe if isinstance(recipe, Mapping) else {}
    numbers = {key: number for key in ("train", "val", "seed") if type(number := recipe.get(key)) is int}
    is_drawn = recipe.get("_target_") == DRAWN and len(numbers) == 3
    if not is_drawn or numbers["train"] + numbers["val"] > MAX_DRAWN:
        raise ValueError(
            f"the checkpoint's data set is not in {root}, and nothing but our own shapes, at most {MAX_DRAWN}, is "
            "drawn again for a checkpoint: name the data set with data=…"
        )
    folder = cache_folder() / "shapes-{train}-{val}-{seed}".format(**numbers)
    write_shapes(folder, **numbers)
    return {**found, "root": str(folder)}


def _reuse_missing_train_split(config: DictConfig) -> None:
    """Lets `data=custom` be evaluated without training images: nothing of them is read."""
    data = config.get("data")
    if data is None or data.get("val") is None or "train" not in data:
        return
    for key in ("images", "annotations"):
        if OmegaConf.is_missing(data.train, key):
            OmegaConf.update(config, f"data.train.{key}", data.val[key])
