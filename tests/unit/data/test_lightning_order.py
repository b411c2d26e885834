"""The samplers under Lightning's own loop, which decides when an epoch is set and when a loader is iterated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from r3cnn.batch import Batch
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.data.scenes import CLASSES
from r3cnn.data.split import Split


class Recorder(L.LightningModule):
    """Learns nothing and remembers which images came."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, ...]] = []
        self.validated: list[tuple[int, ...]] = []

    def training_step(self, batch: Batch) -> Tensor:
        self.seen.append(batch.image_ids)
        return self.weight * 1.0

    def validation_step(self, batch: Batch) -> None:
        self.validated.append(batch.image_ids)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def make_data(shapes_root: Path) -> Callable[[int], CocoDataModule]:
    def make(workers: int) -> CocoDataModule:
        splits = {name: Split(name, f"annotations/instances_{name}.json") for name in ("train", "val")}
        return CocoDataModule(
            root=shapes_root,
            **splits,
            classes=CLASSES,
            batch_size=8,
            eval_batch_size=8,
            image_size=[64, 80],
            workers=workers,
            seed=5,
            flip=0.5,
            on_bad_annotation="error",
            mean=[0, 0, 0],
            std=[1, 1, 1],
        )

    return make


def run(data: CocoDataModule, epochs: int) -> Recorder:
    recorder = Recorder()
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, datamodule=data)
    return recorder


@pytest.mark.parametrize("workers", [0, 1])
def test_lightning_sees_the_order_of_each_epoch_that_the_sampler_states(make_data, workers):
    recorder = run(make_data(workers), epochs=3)

    data = make_data(0)
    loader = data.train_dataloader()
    stated = []
    for epoch in range(3):
        data.set_position(epoch, 0)
        ids = data.train_set.image_ids
        stated += [tuple(ids[draw.item] for draw in batch) for batch in loader.batch_sampler]
    assert recorder.seen == stated
    assert len(set(recorder.seen)) == len(stated)


def test_lightning_validates_every_image_once_per_epoch(make_data):
    recorder = run(make_data(0), epochs=1)
    validated = [image_id for batch in recorder.validated[-len(make_data(0).val_dataloader()) :] for image_id in batch]
    assert sorted(validated) == list(range(1, 21))
