"""An exponential moving average of the weights, which is what is evaluated, kept and used."""

from __future__ import annotations

from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.optim.swa_utils import AveragedModel

from r3cnn.archive import read_archive
from r3cnn.ranges import check_range

CURRENT_WEIGHTS, AVERAGED_STEPS = "current_model_state", "averaging_state"
"""Where Lightning keeps, in a checkpoint, the weights that training goes on with, ``state_dict`` being the average, and
of how many steps it is the average."""


class MovingAverage(AveragedModel):
    """A copy of a module whose floating-point tensors, buffers included, are averaged over the steps.

    The decay starts low and reaches ``decay`` after about ``9 / (1 - decay)`` steps, so that a short run does not end
    with the weights that it started from (as in TensorFlow's ``ExponentialMovingAverage``). The number of steps stays
    on the CPU and all tensors are averaged in one call, so that a step neither waits for a GPU nor launches a kernel
    per tensor; torch's own ``multi_avg_fn`` is handed the number of steps on the GPU.

    Args:
        module: The module to copy.
        decay: Share of the old average in the new one, in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__(module, use_buffers=True)
        self.decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Takes one more step of ``model`` into the average; the first one is the average."""
        steps = int(self.n_averaged)
        share = min(self.decay, (1 + steps) / (10 + steps)) if steps else 0.0
        averaged = [*self.module.parameters(), *self.module.buffers()]
        pairs = list(zip(averaged, [*model.parameters(), *model.buffers()], strict=True))
        numbers = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        if numbers:
            old, current = zip(*numbers, strict=True)
            torch._foreach_lerp_(old, current, 1 - share)
        for one, other in counters:  # batches that a layer has seen
            one.copy_(other)
        self.n_averaged += 1

    def move_to(self, device: torch.device) -> None:
        """Moves the average, but not the number of steps."""
        self.module.to(device)
        self.n_averaged = self.n_averaged.cpu()


class WeightAverage(WeightAveraging):
    """Averages the weights after every optimizer step; validation and everything after training use the average.

    Checkpoints hold the average as ``state_dict``, which every command reads, and beside it the weights that a resumed
    run goes on with. Unlike Lightning's callback, which overwrites these when training ends, this one keeps both then
    too, so that a finished run can be resumed bit by bit.

    Args:
        decay: Share of the old average in the new one, in [0, 1).

    Raises:
        ValueError: For a decay out of range.
    """

    def __init__(self, decay: float) -> None:
        check_range("[0, 1)", decay=decay)
        super().__init__()
        self._decay = decay
        self._is_swapped = False

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Copies the weights when training begins, but not the ground truth that the metric holds."""
        if stage != "fit":
            return
        metric = getattr(pl_module, "metric", None)
        pl_module.metric = None  # type: ignore[assignment]
        self._average_model = MovingAverage(pl_module, self._decay)
        pl_module.metric = metric  # type: ignore[assignment]

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Moves the average to the device of the weights, which Lightning makes it before."""
        if isinstance(self._average_model, MovingAverage):
            self._average_model.move_to(pl_module.device)
        self._is_swapped = False

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Puts the average into the network; the weights of the last step stay with the callback."""
        self._swap_models(pl_module)

    def _swap_models(self, pl_module: lightning.LightningModule) -> None:
        super()._swap_models(pl_module)
        self._is_swapped = not self._is_swapped

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Puts the average into the network, unless it is there already."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Gives the network its own weights back while training goes on."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Adds the weights that training goes on with."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_swapped:  # the network holds the average, the callback the current weights
            average, current = checkpoint[CURRENT_WEIGHTS], checkpoint["state_dict"]
            checkpoint["state_dict"], checkpoint[CURRENT_WEIGHTS] = average, current


def check_average(checkpoint: Path, trainer: lightning.Trainer) -> None:
    """Lets a run with an average of its weights be resumed only with one; else it would go on from the average.

    Raises:
        ValueError: If the checkpoint holds an average and this run keeps none, or one that is damaged.
    """
    content = read_archive(checkpoint, mapped=True)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    if not isinstance(content, dict) or CURRENT_WEIGHTS not in content:
        return
    if not any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise ValueError(
            f"the run of {checkpoint} kept a moving average of its weights: resume it with callbacks=ema or "
            "callbacks=ema_early_stopping, or start from the average with init= instead of resume="
        )
    current, average = (
        {name: getattr(value, "shape", None) for name, value in content[key].items()}
        for key in (CURRENT_WEIGHTS, "state_dict")
    )
    counts = content.get(AVERAGED_STEPS)
    steps = counts.get("n_averaged") if isinstance(counts, dict) and len(counts) == 1 else None
    if not isinstance(steps, torch.Tensor) or steps.dtype != torch.int64 or steps.ndim or steps < 0:
        raise ValueError(f"resume={checkpoint} is damaged: {AVERAGED_STEPS} is {counts!r}: a number of steps is needed")
    if current != average:
        raise ValueError(f"resume={checkpoint} is damaged: {CURRENT_WEIGHTS} are not the weights that state_dict has")
