"""Lightning's own validation loop on several processes, over gloo on the CPU."""

import json
import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import lightning as L
import pytest
import torch
from evaluation_data import data_module
from evaluation_samples import annotation, detections, write_coco
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch import multiprocessing as mp

from r3cnn.batch import Batch
from r3cnn.cli.parts import build_metric
from r3cnn.evaluation.metrics import Metrics
from r3cnn.ops.views import View
from r3cnn.roi.inspection import Inspection
from r3cnn.schedule import ScoreFusion
from r3cnn.structures import Size
from r3cnn.training.checkpoint import Preprocessing
from r3cnn.training.module import EvaluationModule

LEFT, RIGHT = (10.0, 10.0, 20.0, 20.0), (60.0, 50.0, 20.0, 20.0)


class OneAnswer(nn.Module):
    """Finds the same object in every image, after one loop."""

    def inspect(
        self, images: Tensor, sizes: Sequence[Size], views: Sequence[View], rules: Sequence[ScoreFusion]
    ) -> Inspection:
        return Inspection([[detections([(LEFT, 0.9, 0)]) for _ in sizes]], {}, [], [])


def validate(path: Path, strategy: DDPStrategy | str, devices: int, limit_val_batches: float = 1.0) -> Metrics:
    data = data_module(path)
    module = EvaluationModule(OneAnswer(), build_metric({}, data), Preprocessing(data.mean, data.std, data.image_size))
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        limit_val_batches=limit_val_batches,
        strategy=strategy,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.validate(module, datamodule=data, verbose=False)
    assert module.result is not None
    return module.result.metrics


def work(rank: int, path: Path, port: int, ranks: int, limit_val_batches: float = 1.0) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    strategy = DDPStrategy(
        process_group_backend="gloo", timeout=timedelta(seconds=60), cluster_environment=LightningEnvironment()
    )
    metrics = validate(path, strategy, ranks, limit_val_batches)
    (path.parent / f"rank{rank}.json").write_text(json.dumps(metrics))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("ranks", [2, 3])
def test_batches_that_do_not_divide_or_are_too_few_for_all_ranks_give_what_one_rank_gives(
    tmp_path: Path, ranks: int
) -> None:
    """Five images make two batches: two ranks get 4 and 1 of them, the third none."""
    rows = [annotation(number, number, 3, LEFT) for number in range(1, 6)] + [annotation(9, 1, 7, RIGHT)]
    path = write_coco(tmp_path, rows, image_ids=range(1, 6))
    mp.spawn(work, (path, free_port(), ranks), nprocs=ranks)
    alone = validate(path, "auto", devices=1)
    texts = [(tmp_path / f"rank{rank}.json").read_text() for rank in range(ranks)]
    assert texts == [json.dumps(alone)] * ranks
    assert alone["images"] == {"seen": 5, "total": 5}
    assert alone["box"]["ap"] == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(("limit", "seen"), [(1, 4), (2, 8), (0.7, 8)])
def test_a_limit_means_the_same_images_on_two_ranks_as_on_one(tmp_path: Path, limit: float, seen: int) -> None:
    """Three batches, of 4, 4 and 1 images: with one, the second rank has none; with two, each rank has one."""
    rows = [annotation(number, number, 3, LEFT) for number in range(1, 10)] + [annotation(19, 9, 7, RIGHT)]
    path = write_coco(tmp_path, rows, image_ids=range(1, 10))
    mp.spawn(work, (path, free_port(), 2, limit), nprocs=2)
    alone = validate(path, "auto", devices=1, limit_val_batches=limit)
    assert [(tmp_path / f"rank{rank}.json").read_text() for rank in range(2)] == [json.dumps(alone)] * 2
    assert alone["images"] == {"seen": seen, "total": 9}


def test_a_batch_that_is_lost_on_its_way_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_coco(tmp_path, [annotation(1, 1, 3, LEFT)], image_ids=range(1, 6))
    step = EvaluationModule.validation_step

    def lose_the_second(self: EvaluationModule, batch: Batch, batch_index: int) -> None:
        if batch_index != 1:
            step(self, batch, batch_index)

    monkeypatch.setattr(EvaluationModule, "validation_step", lose_the_second)
    with pytest.raises(ValueError, match=r"1 images were handed out and not evaluated: ids 5$"):
        validate(path, "auto", devices=1)


def test_limited_validation_says_of_how_many_images_it_speaks(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 1, 3, LEFT)], image_ids=range(1, 6))
    metrics = validate(path, "auto", devices=1, limit_val_batches=1)
    assert metrics["images"] == {"seen": 4, "total": 5}
