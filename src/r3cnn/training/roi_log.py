"""Follows the RoIs through the loops in training and validation, and writes what it sees into the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from r3cnn.batch import Batch
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.detector import RCNN
from r3cnn.evaluation.metrics_format import RoiReport
from r3cnn.evaluation.roi_report import roi_report, roi_scalars
from r3cnn.evaluation.roi_statistics import Counts, RoiStatistics
from r3cnn.run_files import ROIS, TRAINING_ROIS, write_json
from r3cnn.schedule import LoopSchedule
from r3cnn.training.module import EvaluationModule, TrainingModule

EARLIER, THIS_EPOCH = "earlier.", "this_epoch."


class RoiLog(Callback):
    """Counts the RoIs of every loop; logs, once per epoch, what is worth a curve, and writes two files.

    ``roi_statistics.json`` speaks of the last validation, ``roi_statistics_train.json`` of all training steps so far,
    those before a resume included. Counting waits for nothing: the device is asked once per epoch and checkpoint.

    Args:
        folder: Where the files go.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._training: RoiStatistics | None = None
        self._epoch = 0
        self._earlier: Counts = {}  # of the epochs before it
        self._this_epoch: Counts = {}  # of all its steps up to the last resume, or up to its end

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Lets the module watch its loops."""
        if not isinstance(pl_module, EvaluationModule):
            raise ValueError(f"RoiLog follows our own modules, not a {type(pl_module).__name__}")
        schedule = pl_module.model.schedule
        if stage == "fit" and isinstance(pl_module, TrainingModule):
            self._training = _statistics(pl_module.model, schedule.iou_thresholds)
            self._epoch, self._earlier, self._this_epoch = 0, {}, {}
            pl_module.training_rois = self._training
        pl_module.validation_rois = _statistics(pl_module.model, evaluation_thresholds(schedule))

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Begins another epoch where there is one; Lightning does not announce each of them after a resume."""
        if trainer.current_epoch != self._epoch:
            self._earlier, self._this_epoch = _sum(self._earlier, self._this_epoch), {}
        self._epoch = trainer.current_epoch

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Logs this epoch, writes the whole training so far.

        The epoch stays open: where training ended within it, a resumed run goes on with its counts.
        """
        if self._training is None:
            return
        self._this_epoch = _sum(self._this_epoch, self._training.counts())
        self._training.reset()
        self._log(pl_module, "train", self._report(trainer, self._training, self._this_epoch))
        if trainer.is_global_zero:
            report = self._report(trainer, self._training, _sum(self._earlier, self._this_epoch))
            write_json(report, self.folder / TRAINING_ROIS)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Logs and writes this validation."""
        rois = cast(EvaluationModule, pl_module).validation_rois
        if rois is None:
            return
        report = self._report(trainer, rois, rois.counts())
        rois.reset()
        self._log(pl_module, "val", report)
        if trainer.is_global_zero:
            write_json(report, self.folder / ROIS)

    def state_dict(self) -> dict[str, Tensor]:
        """The counts of all ranks; like the saving of a checkpoint itself, to be called on all of them."""
        if self._training is None:
            return {}
        parts = {EARLIER: self._earlier, THIS_EPOCH: _sum(self._this_epoch, self._training.counts())}
        state = {part + name: np.array(values) for part, counts in parts.items() for name, values in counts.items()}
        return {"epoch": torch.tensor(self._epoch)} | {name: torch.from_numpy(values) for name, values in state.items()}

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Goes on counting where the checkpoint was written, unless it speaks of other loops or classes, or of none."""
        if self._training is None:
            return
        earlier, epoch = _part(state_dict, EARLIER), _part(state_dict, THIS_EPOCH)
        number = _part(state_dict, "epoch").get("")
        shapes = [{name: values.shape for name, values in part.items()} for part in (earlier, epoch)]
        if shapes[0] in ({}, shapes[1]) and shapes[1] == self._training.shapes and number is not None:
            self._earlier, self._this_epoch, self._epoch = earlier, epoch, int(number.max())

    def _report(self, trainer: lightning.Trainer, rois: RoiStatistics, counts: Counts) -> RoiReport:
        data = getattr(trainer, "datamodule", None)
        names = data.classes if isinstance(data, CocoDataModule) else [str(k) for k in range(rois.num_classes)]
        return roi_report(counts, rois.iou_thresholds, names)

    def _log(self, module: lightning.LightningModule, split: str, report: RoiReport) -> None:
        module.log_dict({f"{split}/{name}": value for name, value in roi_scalars(report).items()})


def evaluation_thresholds(schedule: LoopSchedule) -> list[float]:
    """IoU from which on a RoI is positive in each evaluation loop: as trained, the last one for further loops."""
    trained = schedule.iou_thresholds
    return [trained[min(loop, len(trained) - 1)] for loop in range(len(schedule.eval_heads))]


def _statistics(model: RCNN, iou_thresholds: Sequence[float]) -> RoiStatistics:
    return RoiStatistics(model.num_classes, iou_thresholds, model.roi_heads.crowd_iof)


def _sum(counts: Counts, more: Counts) -> Counts:
    """Sums, of which either may be empty."""
    return counts | {name: counts[name] + values if name in counts else values for name, values in more.items()}


def _part(state: dict[str, Tensor], part: str) -> Counts:
    tensors = {name: one for name, one in state.items() if isinstance(one, Tensor) and one.dtype == torch.int64}
    return {name.removeprefix(part): values.numpy() for name, values in tensors.items() if name.startswith(part)}
