"""Lightning's own validation loop on two processes, over gloo on the CPU."""

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

from r3cnn.cli.parts import build_metric
from r3cnn.structures import Detections, Size
from r3cnn.training.checkpoint import Preprocessing
from r3cnn.training.module import EvaluationModule

LEFT, RIGHT = (10.0, 10.0, 20.0, 20.0), (60.0, 50.0, 20.0, 20.0)


class OneAnswer(nn.Module):
    """Finds the same object in every image, after one loop."""

    def detect_per_loop(self, images: Tensor, sizes: Sequence[Size]) -> list[list[Detections]]:
        return [[detections([(LEFT, 0.9, 0)]) for _ in sizes]]


def validate(path: Path, strategy: DDPStrategy | str, devices: int) -> object:
    data = data_module(path)
    module = EvaluationModule(OneAnswer(), build_metric({}, data), Preprocessing(data.mean, data.std, data.image_size))
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=strategy,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.validate(module, datamodule=data, verbose=False)
    return None if module.result is None else module.result.metrics


def work(rank: int, path: Path, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    strategy = DDPStrategy(
        process_group_backend="gloo", timeout=timedelta(seconds=60), cluster_environment=LightningEnvironment()
    )
    metrics = validate(path, strategy, devices=2)
    (path.parent / f"rank{rank}.json").write_text(json.dumps(metrics))


def test_one_batch_on_two_ranks_gives_what_one_rank_gives(tmp_path: Path) -> None:
    rows = [annotation(1, 1, 3, LEFT), annotation(2, 2, 3, LEFT), annotation(9, 1, 7, RIGHT)]
    path = write_coco(tmp_path, rows, image_ids=(1, 2))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (path, port), nprocs=2)
    alone = validate(path, "auto", devices=1)
    assert [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)] == [alone, alone]
    assert alone["images"] == {"seen": 2, "total": 2}
    assert alone["box"]["ap"] == pytest.approx(0.5, abs=1e-12)
