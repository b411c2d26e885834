"""Which images a resumed run sees, under Lightning's own loops: the images that a first run has not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from r3cnn.batch import Batch
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.data.scenes import CLASSES
from r3cnn.data.split import Split
from r3cnn.detector import RCNN
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing
from r3cnn.training.module import TrainingModule, TrainingSettings
from r3cnn.training.optim import MultiStepSchedule, OptimizerSettings

INFO = CheckpointInfo({}, {}, tuple(CLASSES), (1, 2, 3), Preprocessing([0, 0, 0], [1, 1, 1], (64, 80)))
EPOCHS = 3
NUM_IMAGES = 40
NO_WARMUP = MultiStepSchedule([2], "epoch", 0.1, warmup_steps=0, warmup_start=1.0, warmup_share=0.1)


class Watcher(TrainingModule):
    """Learns nothing and writes down, per rank, which images came in which epoch at which rate."""

    def __init__(self, file: Path, batch_size: int, changes: dict[str, float]) -> None:
        options = {"lr": 0.16, "weight_decay": 0.0, **changes}
        optimizer = OptimizerSettings(
            lambda weights, lr: torch.optim.SGD(weights, lr, weight_decay=options["weight_decay"]), options["lr"], 16
        )
        settings = TrainingSettings(optimizer, NO_WARMUP, batch_size, seed=5)
        super().__init__(cast(RCNN, nn.Linear(1, 1)), None, INFO, settings)
        self.file = file

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        group = self.trainer.optimizers[0].param_groups[0]
        line = [self.current_epoch, batch.image_ids, group["lr"], group["weight_decay"]]
        with self.file.with_name(f"{self.file.name}.{self.global_rank}").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return torch.stack([weight.sum() for weight in self.model.parameters()]).sum()


@dataclass
class Run:
    """What a run saw: batches and learning rates by epoch, and weight decays."""

    batches: dict[int, list[list[int]]] = field(default_factory=dict)
    rates: dict[int, set[float]] = field(default_factory=dict)
    decays: set[float] = field(default_factory=set)

    def images(self, epoch: int) -> list[int]:
        return [image for batch in self.batches.get(epoch, []) for image in batch]


@pytest.fixture
def train(shapes_root: Path, tmp_path: Path) -> Callable[..., Run]:
    def run(name: str, batch_size: int, start: str | None = None, *, steps: int = -1, **options: object) -> Run:
        splits = {split: Split(split, f"annotations/instances_{split}.json") for split in ("train", "val")}
        data = CocoDataModule(
            root=shapes_root, **splits, classes=CLASSES, batch_size=batch_size, eval_batch_size=8, image_size=[64, 80],
            workers=0, seed=5, flip=0.5, on_bad_annotation="error", mean=[0, 0, 0], std=[1, 1, 1],
        )  # fmt: skip
        changes = cast("dict[str, float]", options.pop("optimizer", {}))
        each_step = ModelCheckpoint(
            tmp_path / name, "{step}", every_n_train_steps=1, save_top_k=-1, auto_insert_metric_name=False
        )
        trainer = L.Trainer(
            max_epochs=EPOCHS, max_steps=steps, accelerator="cpu", logger=False, use_distributed_sampler=False,
            limit_val_batches=0, enable_progress_bar=False, enable_model_summary=False, callbacks=[each_step],
            **{"devices": 1} | options,
        )  # fmt: skip
        module = Watcher(tmp_path / f"{name}.seen", batch_size, changes)
        ckpt = None if start is None else str(tmp_path / f"{start}.ckpt")
        trainer.fit(module, datamodule=data, ckpt_path=ckpt, weights_only=True)
        found = Run()
        for file in tmp_path.glob(f"{name}.seen.*"):
            for line in file.read_text().splitlines():
                epoch, ids, rate, decay = json.loads(line)
                found.batches.setdefault(epoch, []).append(ids)
                found.rates.setdefault(epoch, set()).add(rate)
                found.decays.add(decay)
        return found

    return run


def assert_once_per_epoch(*runs: Run, missing: int = 0) -> None:
    """All images came once in every epoch, but for some that the last ranks of an epoch have no batch for."""
    for epoch in range(EPOCHS):
        counts = Counter(image for run in runs for image in run.images(epoch))
        assert set(counts.values()) == {1}
        assert NUM_IMAGES - missing <= len(counts) <= NUM_IMAGES


@pytest.mark.parametrize("steps", [1, 2, 6, 7, 8, 13])
@pytest.mark.parametrize("batch_size", [2, 5])
def test_with_another_batch_size_every_image_still_comes_once_per_epoch(
    train: Callable[..., Run], steps: int, batch_size: int
) -> None:
    first = train("first", 3, steps=steps)
    assert_once_per_epoch(first, train("second", batch_size, f"first/{steps}"))


def test_a_run_may_change_its_sizes_again_within_an_epoch_and_over_its_end(train: Callable[..., Run]) -> None:
    runs = [train("first", 1, steps=3)]
    for number, (batch_size, steps, options) in enumerate(
        [(4, 5, {}), (4, 6, {}), (2, 9, {"accumulate_grad_batches": 2}), (3, -1, {})]
    ):
        start = f"{('first', 'part0', 'part1', 'part2')[number]}/{(3, 5, 6, 9)[number]}"
        runs.append(train(f"part{number}", batch_size, start, steps=steps, **options))
    assert_once_per_epoch(*runs)


def test_a_limit_of_batches_counts_a_share_of_the_epoch(train: Callable[..., Run]) -> None:
    first = train("first", 2, steps=2, limit_train_batches=0.5)
    second = train("second", 1, "first/2", limit_train_batches=0.5)
    assert [len(second.images(epoch)) for epoch in range(EPOCHS)] == [16, 20, 20]
    assert not set(first.images(0)) & set(second.images(0))


def test_two_ranks_become_one_and_one_becomes_two(train: Callable[..., Run]) -> None:
    two = {"devices": 2, "strategy": "ddp_fork"}
    first = train("first", 3, steps=2, **two)
    alone = train("alone", 3, "first/2", steps=2 + 10 + 3)
    again = train("again", 3, f"alone/{2 + 10 + 3}", **two)
    assert len(first.batches[0]) == 4
    assert len(alone.batches[1]) == 3 - (len(alone.batches[0]) - 10)
    assert_once_per_epoch(first, alone, again, missing=3)  # an ordinary epoch of two ranks leaves a batch out
    assert sorted(first.images(0) + alone.images(0)) == sorted(alone.images(1) + again.images(1))


def test_settings_of_the_optimizer_are_those_of_the_resumed_run_and_milestones_stay_at_their_epochs(
    train: Callable[..., Run],
) -> None:
    train("first", 4, steps=2)
    second = train("second", 2, "first/2", optimizer={"lr": 0.32, "weight_decay": 0.5})
    assert second.decays == {0.5}
    rates = {epoch: [*rates] for epoch, rates in second.rates.items()}
    assert rates == {0: [pytest.approx(0.04)], 1: [pytest.approx(0.04)], 2: [pytest.approx(0.004)]}  # 0.32 x 2/16


def test_a_run_resumed_from_the_end_of_an_epoch_can_be_resumed_again(train: Callable[..., Run]) -> None:
    whole = train("whole", 3)
    per_epoch = len(whole.batches[0])
    train("second", 3, f"whole/{per_epoch}", steps=per_epoch + 2)
    third = train("third", 3, f"second/{per_epoch + 1}")
    assert third.batches == {1: whole.batches[1][1:], 2: whole.batches[2]}
