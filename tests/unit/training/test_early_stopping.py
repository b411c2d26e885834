from __future__ import annotations

from pathlib import Path

import hydra
import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

CONF = Path(__file__).parents[3] / "conf" / "callbacks" / "_early_stopping.yaml"


class Scored(lightning.LightningModule):
    """Has the next of the given APs at every validation."""

    def __init__(self, aps: list[float]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.aps = iter(aps)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/mask_ap", next(self.aps), batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def epochs(aps: list[float]) -> int:
    """How many epochs there are, one validation each, under the configured callback."""
    callback = hydra.utils.instantiate(OmegaConf.load(CONF).early_stopping)
    assert isinstance(callback, EarlyStopping)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=len(aps),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        callbacks=[callback],
        **options,
    )
    loader = DataLoader(torch.zeros(1, 1))  # type: ignore[arg-type]
    trainer.fit(Scored(aps), loader, loader)
    return trainer.current_epoch


def test_an_undefined_ap_does_not_end_training_but_counts_as_no_better_one() -> None:
    undefined = float("nan")
    assert epochs([undefined, 0.1, undefined, undefined, 0.2, 0.3]) == 6
    assert epochs([0.1, undefined, undefined, undefined, 0.2, 0.3]) == 4
