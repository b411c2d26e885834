"""The end of a training run: final weights kept, evaluated, and compared with the best ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from r3cnn.archive import read_archive
from r3cnn.end_signals import SIGNALS
from r3cnn.evaluation.metrics import EvaluationResult, unvalidated
from r3cnn.training.checkpoint_io import SeveralCheckpoints, WholeFileCheckpointIO
from r3cnn.training.module import TrainingModule, flat_ap


def evaluate_final_weights(
    trainer: lightning.Trainer, module: TrainingModule, data: lightning.LightningDataModule, checkpoints: Path
) -> EvaluationResult:
    """Leaves ``last.ckpt`` behind and returns the score of the final weights.

    A run that ends between two validations (by ``max_steps`` or ``max_time``) is validated once more, and its final
    weights become the best ones if they are; Lightning looks for the best ones only inside ``fit``.

    Args:
        trainer: The trainer after ``fit``.
        module: What it trained.
        data: What it trained with.
        checkpoints: Folder of the checkpoints.

    Returns:
        The score; without validation one that is undefined throughout, with the final weights as the best ones.
    """
    last = checkpoints / "last.ckpt"
    trainer.save_checkpoint(last)
    SIGNALS.release()
    if trainer.limit_val_batches == 0:
        module.result = unvalidated(len(module.model.schedule.eval_heads), module.info.category_ids)
    elif module.result is None or module.result_step != trainer.global_step:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step - 1  # logged as within `fit`
        loggers, is_logged = trainer.loggers, module.validated_before == trainer.global_step
        trainer.loggers = [] if is_logged else loggers
        trainer.validate(module, datamodule=data, verbose=False)
        trainer.loggers = loggers
    if module.result is None:
        raise RuntimeError("Lightning has not validated the final weights")
    if trainer.is_global_zero:
        scores = {f"val/{name}": value for name, value in flat_ap(module.result.metrics).items()}
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor in scores:
                keep_if_best(callback, last, scores[callback.monitor], module.result_step)
    return module.result


def keep_if_best(callback: ModelCheckpoint, last: Path, score: float, step: int) -> None:
    """Copies ``last`` to where ``callback`` keeps its best checkpoint, if it is better or the only one.

    Both files then say so, so that a run that is resumed from them does not put a worse one in its place. ``last`` is
    the second to say it: a run that is ended between them compares its final weights once more when it is resumed.

    Args:
        callback: Keeps the best checkpoint of a run.
        last: Checkpoint of the final weights.
        score: Their value of the monitored metric; may be NaN.
        step: Optimizer step of the final weights.
    """
    names = {str(callback.monitor): torch.tensor(score), "step": torch.tensor(step)}
    path = Path(callback.format_checkpoint_name(names))
    best = math.nan if callback.best_model_score is None else float(callback.best_model_score)
    is_better = score > best if callback.mode == "max" else score < best
    kept = Path(callback.best_model_path)
    is_first = not path.is_file() and not (kept.is_file() and kept.parent == path.parent)
    if not (is_better or is_first):
        return
    worst = _remember(callback, path, score)
    content = cast("dict[str, Any]", read_archive(last, mapped=True))
    content["callbacks"][callback.state_key] = callback.state_dict()
    WholeFileCheckpointIO().save_checkpoint(content, path)
    if isinstance(callback, SeveralCheckpoints):
        callback.name_best(path)
    WholeFileCheckpointIO().save_checkpoint(content, last)
    if worst is not None and worst != path:
        worst.unlink(missing_ok=True)


def _remember(callback: ModelCheckpoint, path: Path, score: float) -> Path | None:
    """Notes the best checkpoint as the callback does within ``fit``; gives the one whose place it takes, if any."""
    lowest = -math.inf if callback.mode == "max" else math.inf
    noted = torch.tensor(lowest if math.isnan(score) else score)
    worst = callback.kth_best_model_path if len(callback.best_k_models) == callback.save_top_k else ""
    callback.best_k_models.pop(worst, None)
    callback.best_model_path, callback.best_model_score = str(path), noted
    callback.best_k_models[str(path)] = noted
    if len(callback.best_k_models) == callback.save_top_k:
        take = min if callback.mode == "max" else max
        callback.kth_best_model_path = take(callback.best_k_models, key=lambda key: float(callback.best_k_models[key]))
        callback.kth_value = callback.best_k_models[callback.kth_best_model_path]
    return Path(worst) if worst else None
