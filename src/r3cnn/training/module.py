"""The Lightning side of a detector: thin, since the network and the metric know nothing of Lightning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import cast, get_args

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from r3cnn.batch import Batch
from r3cnn.detector import RCNN, BackwardOrder
from r3cnn.evaluation.coco_ap import CocoAP, EvaluationResult
from r3cnn.evaluation.roi_statistics import RoiStatistics
from r3cnn.names import metric_key
from r3cnn.ops.images import normalize_images
from r3cnn.training.checkpoint import KEY, CheckpointInfo, Preprocessing
from r3cnn.training.loggers import CsvLogger
from r3cnn.training.loops import resume_within_steps
from r3cnn.training.optim import MultiStepSchedule, OptimizerSettings
from r3cnn.training.position import RUN, EpochStart, dealing_of, positioned, take_up, total_steps
from r3cnn.training.rank_checks import check_loss_scaling, check_sync_batch_norm
from r3cnn.training.validation import EvaluationOptions, handed_out

NUM_SEED_BYTES = 7


def stable_seed(*numbers: int) -> int:
    """A seed in [0, 2^56) that is a function of the numbers alone, equal on every machine and in every process."""
    digest = hashlib.blake2b(",".join(map(str, numbers)).encode(), digest_size=NUM_SEED_BYTES).digest()
    return int.from_bytes(digest, "big")


class EvaluationModule(lightning.LightningModule):
    """Runs a detector over the validation images and scores it after every loop.

    Attributes:
        metric: Scores what is found; None where there is nothing to score it with.
        result: Outcome of the last validation, None before the first one.
        result_step: Optimizer step of the weights that ``result`` speaks of.
        options: What is looked at beside the detections of every loop.
        handed_out: Ids of the images that this rank validates; None if not known.
        validation_rois: Counts the RoIs of every evaluation loop, if set.
    """

    def __init__(self, model: RCNN, metric: CocoAP | None, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.metric = metric
        self.preprocessing = preprocessing
        self.result: EvaluationResult | None = None
        self.result_step = -1
        self.options = EvaluationOptions()
        self.handed_out: tuple[int, ...] | None = None
        self.validation_rois: RoiStatistics | None = None

    @property
    def _metric(self) -> CocoAP:
        if self.metric is None:
            raise ValueError("there is nothing to score detections with: this run has no validation data")
        return self.metric

    def normalized(self, batch: Batch) -> Tensor:
        """(B, 3, H, W) float32 network input of a batch that lies on the device."""
        return normalize_images(batch.images, batch.canvas, self.preprocessing.mean, self.preprocessing.std)

    def on_validation_epoch_start(self) -> None:
        """Notes which images this rank is given, and forgets what was found before: memory holds one validation."""
        self.result = None
        batches = self.trainer.num_sanity_val_batches if self.trainer.sanity_checking else self.trainer.num_val_batches
        self.handed_out = handed_out(self.trainer.val_dataloaders, batches)
        self._metric.start(self.handed_out)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Detects after every loop in one backbone pass per view and hands the outcome to the metric."""
        if self.handed_out == ():
            return  # the batch is there for Lightning's loop alone
        found = self.model.inspect(self.normalized(batch), batch.sizes, self.options.views, self.options.score_fusions)
        if self.validation_rois is not None:
            self.validation_rois.update(batch, found.traces)
        self._metric.update(batch, found.detections, fused=found.fused, candidates=found.candidates)

    def on_validation_epoch_end(self) -> None:
        """Scores the detections of all ranks and logs the AP of every loop."""
        self.result = self._metric.compute()
        self.result_step = self.global_step
        self._metric.reset()
        self.log_dict({f"val/{name}": value for name, value in flat_ap(self.result.metrics).items()})


def flat_ap(metrics: Mapping[str, object]) -> dict[str, float]:
    """Content of ``metrics.json`` as ``box_ap``, ``loop1/box_ap``, ``class/cat/box_ap`` …; undefined ones are NaN."""
    found: dict[str, float] = {}
    for kind in ("box", "mask"):
        values = metrics.get(kind)
        if isinstance(values, Mapping):
            found |= {f"{kind}_{name}": math.nan if value is None else float(value) for name, value in values.items()}
    loops = metrics.get("loops")
    if isinstance(loops, Mapping):
        for loop, values in loops.items():
            found |= {f"loop{loop}/{name}": value for name, value in flat_ap(values).items()}
    classes = metrics.get("per_class")
    if isinstance(classes, Mapping):
        for name, values in classes.items():
            place = f"class/{metric_key(name)}"
            found |= {f"{place}/{kind}_ap": math.nan if ap is None else ap for kind, ap in values.items()}
    return found


@dataclass(frozen=True)
class TrainingSettings:
    """How a detector is trained.

    Attributes:
        optimizer: Optimizer and its learning rate.
        lr_schedule: The learning rate over time.
        images_per_rank: Images of one training batch on one rank.
        seed: Seed of the run.
        backward: See `RCNN.total_loss`.
    """

    optimizer: OptimizerSettings
    lr_schedule: MultiStepSchedule
    images_per_rank: int
    seed: int
    backward: BackwardOrder = "at_once"

    def __post_init__(self) -> None:
        if self.backward not in get_args(BackwardOrder):
            raise ValueError(f"backward must be one of {get_args(BackwardOrder)}, got {self.backward!r}")


class TrainingModule(EvaluationModule):
    """Trains a detector; every random choice is a function of (seed, epoch, batch, rank), never of history.

    Attributes:
        training_rois: Counts the RoIs of every training loop, if set.
        total_steps: Optimizer steps of the whole run once training has begun; infinite when only time limits it.
        validated_before: Optimizer step of the last validation before a resume.
    """

    def __init__(self, model: RCNN, metric: CocoAP | None, info: CheckpointInfo, settings: TrainingSettings) -> None:
        super().__init__(model, metric, info.preprocessing)
        self.info = info
        self.settings = settings
        self.training_rois: RoiStatistics | None = None
        self.total_steps = math.inf
        self.validated_before: object = None
        self._start = EpochStart()
        self._group_settings: list[dict[str, object]] = []

    def setup(self, stage: str) -> None:
        """Starts the data at the first batch; a resumed run moves on from there when its checkpoint is read."""
        if stage == "fit":
            check_loss_scaling(self.settings.backward, str(self.trainer.precision))
            check_sync_batch_norm(self.model, self.trainer.strategy.root_device.type, self.trainer.world_size)
            positioned(self.trainer).set_position(0, 0)

    def on_fit_start(self) -> None:
        """Puts every layer into its training mode; Lightning keeps whatever mode it finds."""
        self.train()

    def on_train_start(self) -> None:
        """Gives the optimizer this run's settings; those of an older run came with the checkpoint."""
        scheduler = self.lr_schedulers()
        if isinstance(scheduler, LambdaLR):
            groups = scheduler.optimizer.param_groups
            for group, settings, multiplier in zip(groups, self._group_settings, scheduler.lr_lambdas, strict=True):
                group |= settings
                group["lr"] = group["initial_lr"] * multiplier(scheduler.last_epoch)
            scheduler.base_lrs = [group["initial_lr"] for group in groups]

    def on_train_epoch_start(self) -> None:
        """Gives the epoch its own order of images."""
        positioned(self.trainer).set_position(self.current_epoch, 0)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Lets the log count optimizer steps, after a resume with other sizes as well."""
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # Lightning knows the argument by this name
        """Weighted sum of all losses.

        Raises:
            FloatingPointError: When it is not finite.
        """
        generator = torch.Generator(device=self.device)
        generator.manual_seed(stable_seed(self.settings.seed, self.current_epoch, batch_idx, self.global_rank))
        observe = None if self.training_rois is None else partial(self.training_rois.update, batch)
        total, raw = self.model.total_loss(
            self.normalized(batch), batch.sizes, batch.targets, generator, observe, backward=self.settings.backward
        )
        weights = self.model.loss_weights()
        if not torch.isfinite(total):
            raise FloatingPointError(_non_finite_message(batch, raw, self.global_step))
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=len(batch))
        self.log_dict({f"train/{key}": value for key, value in raw.items()}, batch_size=len(batch))
        weighted = {f"train/weighted/{key}": weights[key] * value for key, value in raw.items()}
        self.log_dict(weighted, batch_size=len(batch))
        return total

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimizer at the rate of the real global batch, and its schedule, both per optimizer step."""
        accumulated = self.trainer.accumulate_grad_batches
        images_per_step = self.settings.images_per_rank * self.trainer.world_size * accumulated
        optimizer = self.settings.optimizer.build(self.model.parameters(), images_per_step)
        self.trainer.fit_loop.setup_data()  # else a run limited by steps alone does not know its epochs' length yet
        self.total_steps = total_steps(self.trainer, self._start.steps_ahead)
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / accumulated)
        multiplier = self.settings.lr_schedule.multiplier(
            steps_per_epoch, self.total_steps, time_spent_in(self.trainer), self._start.steps_ahead
        )
        scheduler = LambdaLR(optimizer, multiplier)
        self._group_settings = [
            {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
        ]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Adds what is needed to use the network without the training configuration."""
        checkpoint[KEY] = self.info.to_dict()
        checkpoint[RUN] = {
            **dealing_of(self.trainer, self.settings.images_per_rank, self._start),
            "optimizer": type(self.trainer.optimizers[0]).__name__,
            "rows": next((each.secured_rows() for each in self.trainer.loggers if isinstance(each, CsvLogger)), None),
            "unlogged": self._about_to_log(),
            "validated": self.result_step,
        }

    def _about_to_log(self) -> dict[str, float]:
        """Numbers of the step or epoch that ends, which Lightning logs only after the callbacks that save."""
        connector, loop = self.trainer._logger_connector, self.trainer.fit_loop
        batches, epochs = loop.epoch_loop.batch_progress, loop.epoch_progress
        is_step_logged = connector.should_update_logs and not loop._should_accumulate()
        is_within_step = batches.current.completed < batches.current.processed and is_step_logged  # type: ignore[attr-defined]
        is_epoch_end = epochs.current.completed < epochs.current.processed  # type: ignore[attr-defined]
        if self.trainer.validating or not (is_within_step or is_epoch_end):
            return {}
        numbers = {name: float(value) for name, value in connector.metrics["log"].items()}
        return {**numbers, "epoch": self.current_epoch} if numbers else {}

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Moves the data on to where the checkpoint was written; Lightning does so only for its own counters."""
        self._start, unfinished = take_up(self.trainer, checkpoint, self.settings.images_per_rank)
        resume_within_steps(self.trainer, unfinished)
        self.validated_before = cast("dict[str, object]", checkpoint[RUN]).get("validated")


def time_spent_in(trainer: lightning.Trainer) -> Callable[[], float] | None:
    """Asks how much of ``trainer.max_time`` is over, in [0, 1], on the first rank's clock; None without a limit.

    A resumed run goes on counting where its checkpoint was written.
    """
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    if not timers or timers[0].time_remaining() is None:
        return None

    def spent() -> float:
        elapsed, remaining = timers[0].time_elapsed(), timers[0].time_remaining() or 0.0
        return float(trainer.strategy.broadcast(min(1.0, elapsed / max(elapsed + remaining, 1e-9))))

    return spent


def _non_finite_message(batch: Batch, losses: Mapping[str, Tensor], step: int) -> str:
    culprits = {key: value.item() for key, value in losses.items() if not torch.isfinite(value)}
    return (
        f"the loss is not finite at step {step}: {culprits or 'the weighted sum overflowed'}; image ids "
        f"{list(batch.image_ids)}. Look at these images, or lower optimizer.lr, or use trainer.precision=bf16-mixed "
        "instead of 16-mixed"
    )
