"""The end of a training run: final weights kept, evaluated, and compared with the best ones."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint

from r3cnn.evaluation.coco_ap import EvaluationResult
from r3cnn.training.module import TrainingModule, flat_ap

MONITOR = "val/mask_ap"


def evaluate_final_weights(
    trainer: lightning.Trainer, module: TrainingModule, data: lightning.LightningDataModule, checkpoints: Path
) -> EvaluationResult:
    """Leaves ``last.ckpt`` and ``best.ckpt`` behind and returns the score of the final weights.

    A run that ends between two validations (by ``max_steps`` or ``max_time``) is validated once more.

    Args:
        trainer: The trainer after ``fit``.
        module: What it trained.
        data: What it trained with.
        checkpoints: Folder of the checkpoints.

    Raises:
        ValueError: When validation is switched off, so that there is nothing to report.
    """
    last, best = checkpoints / "last.ckpt", checkpoints / "best.ckpt"
    trainer.save_checkpoint(last)
    if module.result is None or module.result_step != trainer.global_step:
        trainer.validate(module, datamodule=data, verbose=False)
    if module.result is None:
        raise ValueError("there is no validation result: trainer.limit_val_batches must not be 0")
    score = flat_ap(module.result.metrics)["mask_ap"]
    if trainer.is_global_zero and (not best.is_file() or _is_better(score, _best_score(trainer))):
        shutil.copyfile(last, best)
    return module.result


def _best_score(trainer: lightning.Trainer) -> float:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor == MONITOR:
            return math.nan if callback.best_model_score is None else float(callback.best_model_score)
    return math.nan


def _is_better(score: float, best: float) -> bool:
    return not math.isnan(score) and (not math.isfinite(best) or score > best)
