"""``r3cnn train``: trains, evaluates the final weights, and writes everything into one folder."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning
from omegaconf import DictConfig

from r3cnn.cli.configs import plain, settle
from r3cnn.cli.outcome import remove_outcome, write_outcome
from r3cnn.cli.parts import build_data, build_metric, build_trainer, checked, save_config
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.training.build import instantiate
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing, build_model
from r3cnn.training.finish import evaluate_final_weights
from r3cnn.training.loggers import CsvLogger
from r3cnn.training.module import TrainingModule, TrainingSettings
from r3cnn.training.optim import MultiStepSchedule, OptimizerSettings
from r3cnn.training.position import step_in

log = logging.getLogger(__name__)
LAST = "last"


def run(config: DictConfig) -> None:
    """Trains one network."""
    output_dir = settle(config)
    resume = resume_path(config.resume, output_dir)
    save_config(plain(config), output_dir / "config.yaml")
    log.info("everything of this run goes to %s", output_dir)
    lightning.seed_everything(config.seed, verbose=False)

    data = build_data(plain(config.data), trusted=None)
    module = build_module(config, data)
    trainer = build_trainer(config)
    if resume is None:
        remove_outcome(output_dir)
        module.model.backbone.fetch_weights()
    _cut_logs(trainer, 0 if resume is None else step_in(resume))
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    result = evaluate_final_weights(trainer, module, data, output_dir / "checkpoints")
    if trainer.is_global_zero:
        write_outcome(result, module, data, output_dir, config.pictures)


def resume_path(resume: str | None, output_dir: Path) -> Path | None:
    """The checkpoint to go on from.

    Raises:
        FileNotFoundError: If it is not there.
    """
    if resume is None:
        return None
    path = output_dir / "checkpoints" / "last.ckpt" if resume == LAST else Path(resume)
    if not path.is_file():
        raise FileNotFoundError(
            f"resume={resume}: no checkpoint at {path}; resume=last looks in output_dir/checkpoints"
        )
    return path


def build_module(config: DictConfig, data: CocoDataModule) -> TrainingModule:
    """The network with everything that trains and scores it."""
    model = plain(config.model)
    info = CheckpointInfo(
        model=model,
        data=plain(config.data),
        classes=data.classes,
        category_ids=data.category_ids,
        preprocessing=Preprocessing(data.mean, data.std, data.image_size),
    )
    settings = TrainingSettings(
        optimizer=checked(instantiate(plain(config.optimizer)), OptimizerSettings, "optimizer"),
        lr_schedule=checked(instantiate(plain(config.lr_schedule)), MultiStepSchedule, "lr_schedule"),
        images_per_rank=config.data.batch_size,
        seed=config.seed,
    )
    network = build_model(model, trusted=None)
    if network.num_classes != len(info.classes):
        raise ValueError(f"the network has {network.num_classes} classes, the data set {len(info.classes)}")
    return TrainingModule(network, build_metric(plain(config.evaluation), data), info, settings)


def _cut_logs(trainer: lightning.Trainer, step: int) -> None:
    """Drops what an earlier run in the same folder wrote from ``step`` on."""
    for logger in trainer.loggers:
        if isinstance(logger, CsvLogger):
            logger.keep_rows_before(step)
