"""What a Weights & Biases run is told while it lasts, beside what every logger is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback

from r3cnn.evaluation.metrics_format import FIGURES, RoiReport
from r3cnn.run_files import ROIS, TRAINING_ROIS, read_json
from r3cnn.training.module import EvaluationModule
from r3cnn.training.roi_log import RoiLog
from r3cnn.training.wandb_run import STEP, WandbRun, without_stopping_the_run

if TYPE_CHECKING:
    import wandb

LOOP = "by_loop/loop"  # the x-axis of what is logged once per loop, when a run is over
BY_LOOP = ("by_loop/box_ap", "by_loop/mask_ap", "by_loop/roi_balance_train", "by_loop/roi_balance_val")


class WandbReport(Callback):
    """Says which curve is best when it is highest, and adds parameters and the IoU histograms of the RoIs per loop.

    Args:
        logger: The run.
    """

    def __init__(self, logger: WandbRun) -> None:
        self.logger = logger
        self._has_begun = False

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Begins the report, once."""
        if self._has_begun or not trainer.is_global_zero:
            return
        self._has_begun = True
        self.logger.keep_id()
        model = cast(EvaluationModule, pl_module).model
        define_metrics(self.logger.experiment, len(model.schedule.eval_heads))
        sizes = [(each.numel(), each.requires_grad) for each in model.parameters()]
        counts = {"total": sum(size for size, _ in sizes), "trainable": sum(size for size, learns in sizes if learns)}
        self.logger.experiment.summary.update({f"parameters/{name}": count for name, count in counts.items()})

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Histograms of the training so far."""
        self._log_histograms(trainer, "train", TRAINING_ROIS)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Histograms of this validation."""
        self._log_histograms(trainer, "val", ROIS)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Ends the run as a failed one; it may be continued."""
        if self._has_begun:
            with without_stopping_the_run():
                self.logger.experiment.finish(exit_code=1)

    def _log_histograms(self, trainer: lightning.Trainer, split: str, file_name: str) -> None:
        import wandb

        report = roi_report_of(trainer, file_name) if trainer.is_global_zero else None
        if report is None:
            return
        edges = np.array(report["bin_edges"])
        histograms = {
            f"rois/{split}/loop{loop}": wandb.Histogram(np_histogram=(np.array(values["histogram"]), edges))
            for loop, values in report["loops"].items()
        }
        self.logger.log_once({**histograms, STEP: trainer.global_step})


def roi_report_of(trainer: lightning.Trainer, file_name: str) -> RoiReport | None:
    """What ``RoiLog`` wrote last; None where it does not take part or has written nothing yet."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RoiLog) and (callback.folder / file_name).is_file():
            return read_json(callback.folder / file_name, RoiReport)
    return None


def define_metrics(run: wandb.Run, num_loops: int) -> None:
    """Makes the highest AP the one that stands for a run; of everything else it is the last value.

    By name, since of several patterns that fit the library takes any.

    Args:
        run: The run.
        num_loops: Evaluation loops.
    """
    run.define_metric("memory/peak_gib", step_metric=STEP, summary="max")
    for name in ap_names(num_loops):
        run.define_metric(name, step_metric=STEP, summary="max")
    run.define_metric(LOOP, hidden=True)
    for name in BY_LOOP:
        run.define_metric(name, step_metric=LOOP)


def ap_names(num_loops: int) -> Iterator[str]:
    """Names of all logged AP, of the result and after every loop."""
    for place in ("", *(f"loop{loop}/" for loop in range(1, num_loops + 1))):
        for kind in ("box", "mask"):
            yield from (f"val/{place}{kind}_{name}" for name in FIGURES)
