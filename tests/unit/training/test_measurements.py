"""Speed and memory of a run, on a clock that the test turns."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from r3cnn.training import measurements
from r3cnn.training.measurements import Measurements, Stopwatch, Totals

LOADING, STEP, VALIDATION, CHECKPOINT = 2.0, 1.0, 100.0, 1000.0
IMAGES = 4


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(measurements, "time", SimpleNamespace(perf_counter=made))
    return made


@dataclass
class Batches:
    """So many batches, each of which takes its time to load."""

    clock: Clock
    number: int

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Tensor:
        if index >= self.number:
            raise IndexError
        self.clock.now += LOADING
        return torch.ones(IMAGES, 1)


class Model(L.LightningModule):
    """Takes a second per step and a hundred per validation batch."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.layer, self.clock = nn.Linear(1, 1), clock
        self.handed_out: tuple[int, ...] | None = None

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        self.clock.now += STEP
        return self.layer(batch).sum()

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        self.clock.now += VALIDATION

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SlowCheckpoint(ModelCheckpoint):
    """Takes a thousand seconds to write."""

    def __init__(self, clock: Clock, folder: str) -> None:
        super().__init__(folder, every_n_train_steps=3, save_top_k=-1)
        self.clock = clock

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self.clock.now += CHECKPOINT


def fit(
    clock: Clock, folder: str, steps: int, warm_up: int = 1, resume: str | None = None, limit: int = 2
) -> tuple[Measurements, L.Trainer]:
    callback = Measurements(warm_up, 0)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        val_check_interval=5,
        limit_val_batches=limit,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback, SlowCheckpoint(clock, folder)],
    )
    training, validation = (DataLoader(Batches(clock, number), batch_size=None) for number in (10, 2))
    trainer.fit(Model(clock), training, validation, ckpt_path=resume, weights_only=True)
    return callback, trainer


def test_steps_count_with_their_loading_but_without_validation_and_checkpoints(clock: Clock, tmp_path: Path) -> None:
    callback, trainer = fit(clock, str(tmp_path), steps=10)
    assert clock.now > 2 * VALIDATION + 3 * CHECKPOINT
    assert callback.training.images_per_second == IMAGES / (LOADING + STEP)
    assert trainer.callback_metrics["speed/train_images_per_second"] == pytest.approx(IMAGES / (LOADING + STEP))


def test_evaluation_counts_from_the_image_to_the_detections(clock: Clock, tmp_path: Path) -> None:
    callback, trainer = fit(clock, str(tmp_path), steps=5)
    assert callback.evaluation.images == 2 * IMAGES
    assert callback.evaluation.images_per_second == pytest.approx(IMAGES / VALIDATION, rel=0.05)
    assert trainer.callback_metrics["speed/eval_images_per_second"] == pytest.approx(IMAGES / VALIDATION, rel=0.05)


def test_a_resumed_run_tells_the_speed_of_both_parts(clock: Clock, tmp_path: Path) -> None:
    first, trainer = fit(clock, str(tmp_path), steps=6, warm_up=0)
    path = f"{tmp_path}/resumed.ckpt"
    trainer.save_checkpoint(path)
    second, _ = fit(clock, str(tmp_path), steps=10, warm_up=0, resume=path)
    assert second.training.images > first.training.images > 0
    assert second.training.images_per_second == IMAGES / (LOADING + STEP)
    assert second.total_seconds > first.training.seconds


def test_a_run_resumed_after_its_last_step_tells_the_speed_that_it_had(clock: Clock, tmp_path: Path) -> None:
    first, trainer = fit(clock, str(tmp_path), steps=6, warm_up=0)
    path = f"{tmp_path}/resumed.ckpt"
    trainer.save_checkpoint(path)
    second, _ = fit(clock, str(tmp_path), steps=6, warm_up=0, resume=path)
    assert second.training == first.training
    assert second.training.images > 0


def test_a_run_shorter_than_the_warm_up_tells_no_speed(clock: Clock, tmp_path: Path) -> None:
    callback, trainer = fit(clock, str(tmp_path), steps=3, warm_up=10)
    assert callback.training.images_per_second is None
    assert torch.isnan(trainer.callback_metrics["speed/train_images_per_second"])


def test_memory_is_that_of_the_process_on_a_cpu(clock: Clock, tmp_path: Path) -> None:
    callback, trainer = fit(clock, str(tmp_path), steps=3)
    assert callback.training.memory > 50 * 2**20
    assert trainer.callback_metrics["memory/peak_gib"] == pytest.approx(callback.training.memory / 2**30)


def test_the_first_intervals_and_interrupted_ones_do_not_count(clock: Clock) -> None:
    watch = Stopwatch(warm_up=1)
    watch.start()
    for seconds in (50.0, 2.0, 3.0):
        clock.now += seconds
        watch.end_batch(IMAGES)
    watch.interrupt()
    clock.now += 70.0
    watch.end_batch(IMAGES)
    clock.now += 5.0
    watch.end_batch(IMAGES)
    assert (watch.images, watch.seconds) == (3 * IMAGES, 10.0)


def test_parts_of_a_run_add_up_but_for_their_memory() -> None:
    assert Totals(4, 2.0, 10).after(Totals(6, 3.0, 30)) == Totals(10, 5.0, 30)
    assert Totals().images_per_second is None


@pytest.mark.parametrize("counts", [(-1, 0), (0, -1)])
def test_negative_warm_ups_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"warm_up_\w+ must be in \[0, inf\)"):
        Measurements(*counts)
