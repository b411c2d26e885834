"""``r3cnn train``: trains, evaluates the final weights, and writes everything into one folder."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig

from r3cnn.archive import is_whole
from r3cnn.cli.configs import plain, settle
from r3cnn.cli.dashboard import report_outcome, training_facts
from r3cnn.cli.earlier_run import GO_ON, RunFolder, check_same_run, is_finished, refuse_used, settle_previous
from r3cnn.cli.folder_lock import sole_writer
from r3cnn.cli.initial import check_options, check_resumed, start_from
from r3cnn.cli.job_checks import check_call, check_gpus, check_job, check_lengths
from r3cnn.cli.jobs import AUTO
from r3cnn.cli.jobs import LAST as NEWEST
from r3cnn.cli.ledger import write_record
from r3cnn.cli.outcome import (
    evaluation_files,
    run_files,
    show_outcome,
    write_outcome,
)
from r3cnn.cli.parts import build_data, build_metric, build_trainer, evaluation_options
from r3cnn.cli.ranks import is_one_of_several, rank_in
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.inference_modes import compile_network
from r3cnn.run_files import BEST, CHECKPOINTS, CONFIG, EVALUATED, LAST, RESULT, TRAINING_CONFIG, write_config
from r3cnn.training.build import build
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing, build_model
from r3cnn.training.finish import evaluate_final_weights
from r3cnn.training.loggers import CsvLogger, TensorBoardLogger
from r3cnn.training.module import TrainingModule, TrainingSettings
from r3cnn.training.optim import MultiStepSchedule, OptimizerSettings
from r3cnn.training.position import log_in, step_in
from r3cnn.training.weight_average import check_average

log = logging.getLogger(__name__)
NOTHING_WHOLE = "there is no whole last.ckpt or best.ckpt; overwrite=true instead of resume=auto replaces it, or "


def run(config: DictConfig) -> None:
    """Trains one network; a finished run that ``resume=auto`` would go on with is left alone."""
    check_call()
    check_job(config)
    check_lengths(config)
    if not is_one_of_several(os.environ):  # each of which may be shown its own GPU alone
        check_gpus(config)
    output_dir = settle(config)
    check_options(config)
    is_auto = config.resume == AUTO
    if is_auto and is_finished(config, output_dir):
        log.info("finished already: %s", output_dir / RESULT)
        return
    with sole_writer(output_dir, waits=is_auto):
        settle_previous(output_dir)
        if is_auto and rank_in(os.environ) == 0 and is_finished(config, output_dir):
            _leave_to_the_other(output_dir)
            return
        try:
            train(config, output_dir)
        finally:
            if rank_in(os.environ) == 0:
                settle_previous(output_dir)


def _leave_to_the_other(output_dir: Path) -> None:
    """Leaves a folder alone in which another run of the same configuration has finished since we looked.

    Raises:
        ValueError: When this is one of several ranks, the others of which have begun.
    """
    if is_one_of_several(os.environ):
        raise ValueError(f"output_dir={output_dir}: another run has finished this very moment; there is nothing to do")
    log.info("finished by an earlier run: %s", output_dir / RESULT)


def train(config: DictConfig, output_dir: Path) -> None:
    """Trains one network and writes everything into one folder, which no other run writes into."""
    resume = resume_path(config.resume, output_dir)
    is_own = resume is not None and resume.resolve().parent == (output_dir / CHECKPOINTS).resolve()
    _check_folder(config, output_dir, is_own=is_own)  # all ranks: none would wait for one that was refused
    lightning.seed_everything(config.seed, verbose=False)

    data = build_data(plain(config.data), trusted=None)
    module = build_module(config, data)
    if config.init is not None and resume is None:
        start_from(module.model, module.info, config)
    trainer = build_trainer(config, training_facts(config, module.model.schedule, is_continued=is_own))
    begin = partial(_begin, trainer, config, output_dir, resume, is_own=is_own)
    trainer.callbacks.insert(0, RunFolder(output_dir, replaces=config.overwrite, begin=begin))  # type: ignore[attr-defined]
    if resume is not None:
        check_resumed(module, data.order, trainer, resume)
        check_average(resume, trainer)
    if resume is None and config.init is None:
        module.model.backbone.fetch_weights()
    # Lightning opens its files before any callback has its turn.
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.keep_rows_before(0 if resume is None else step_in(resume))
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    _report_early_stop(trainer)
    result = evaluate_final_weights(trainer, module, data, output_dir / CHECKPOINTS)
    if trainer.is_global_zero:
        write_outcome(result, module, output_dir)
        write_record(config, trainer, module, data, output_dir)
        show_outcome(result, module, data, output_dir, config.pictures)
        report_outcome(trainer, module, data, result, output_dir)


def _check_folder(config: DictConfig, output_dir: Path, *, is_own: bool) -> None:
    """Refuses a folder that holds another run, unless it is to be replaced."""
    if is_own and config.overwrite:
        raise ValueError(
            f"overwrite=true replaces the run in {output_dir}, resume={config.resume} continues it: give only one"
        )
    if is_own and config.resume == AUTO:
        check_same_run(config, output_dir)
    if not is_own and not config.overwrite:
        refuse_used(output_dir, "train", NOTHING_WHOLE if config.resume == AUTO else GO_ON)


def _begin(
    trainer: lightning.Trainer, config: DictConfig, output_dir: Path, resume: Path | None, *, is_own: bool
) -> None:
    """Removes what does not hold any more once a run goes on in its folder, and says what begins.

    Its checkpoints, curves and RoI statistics of training stay, as they go on; ``evaluated.ckpt`` goes with the metrics
    that it belongs to, unless it is the one to go on from. In any other folder there can only be remains of a run
    without a checkpoint.
    """
    log.info("everything of this run goes to %s", output_dir)
    step = 0 if resume is None else step_in(resume)
    if resume is not None:
        log.info("resuming from step %d of %s", step, resume)
    evaluated = output_dir / CHECKPOINTS / EVALUATED
    stale = [output_dir / RESULT, output_dir / TRAINING_CONFIG, evaluated, *evaluation_files(output_dir)]
    for path in stale if is_own else run_files(output_dir):
        if path.is_file() and path.resolve() != (resume and resume.resolve()):
            path.unlink()
    write_config(plain(config), output_dir / CONFIG)
    num_rows, unlogged = (None, {}) if resume is None else log_in(resume)
    for logger in trainer.loggers:
        if isinstance(logger, CsvLogger):
            logger.keep_rows_before(step, num_rows)
        if is_own and unlogged:
            logger.log_metrics(dict(unlogged), step - 1)


def resume_path(resume: str | None, output_dir: Path) -> Path | None:
    """The checkpoint to go on from; None for a fresh start.

    Raises:
        FileNotFoundError: If it is not there.
    """
    checkpoints = output_dir / CHECKPOINTS
    if resume is None:
        return None
    if resume == AUTO:
        return next((path for path in (checkpoints / LAST, checkpoints / BEST) if _is_whole(path)), None)
    path = checkpoints / LAST if resume == NEWEST else Path(resume)
    if not path.is_file():
        raise FileNotFoundError(
            f"resume={resume}: no checkpoint at {path}; resume=last looks in output_dir/checkpoints"
        )
    return path


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint is there without damage; what the disk refuses to read is raised, as it may be whole."""
    if not path.is_file():
        return False
    if not is_whole(path):
        log.warning("skipping unreadable checkpoint %s: it is damaged or no checkpoint", path)
        return False
    return True


def build_module(config: DictConfig, data: CocoDataModule) -> TrainingModule:
    """The network with everything that trains and scores it."""
    model = plain(config.model)
    info = CheckpointInfo(
        model=model,
        data=plain(config.data),
        classes=data.classes,
        category_ids=data.category_ids,
        preprocessing=Preprocessing(data.mean, data.std, data.image_size, data.reader.image_range),
    )
    settings = TrainingSettings(
        optimizer=build(plain(config.optimizer), OptimizerSettings, "optimizer"),
        lr_schedule=build(plain(config.lr_schedule), MultiStepSchedule, "lr_schedule"),
        images_per_rank=config.data.batch_size,
        seed=config.seed,
        backward=config.backward,
    )
    network = build_model(model, trusted=None)
    if network.num_classes != len(info.classes):
        raise ValueError(
            f"num_classes is {network.num_classes}: the data set has {len(info.classes)} classes, as many are needed"
        )
    if config.compile:
        compile_network(network)
    metric = None if data.val is None else build_metric(plain(config.evaluation), data)
    module = TrainingModule(network, metric, info, settings)
    module.options = evaluation_options(config.evaluation)
    return module


def _report_early_stop(trainer: lightning.Trainer) -> None:
    """Says why a run ended before its time."""
    for callback in trainer.early_stopping_callbacks if trainer.should_stop else ():
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message is not None:
            log.info("stopped early: %s", callback.stopping_reason_message)
