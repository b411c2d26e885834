"""Several processes give what one gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import TINY_RUN

TWO_RANKS = ("trainer.devices=2", "trainer.strategy=ddp")


def r3cnn(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "r3cnn", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_ranks_evaluate_to_the_same_metrics_as_one(trained: Path, tmp_path: Path) -> None:
    call = (f"checkpoint={trained}/checkpoints/last.ckpt", "trainer.accelerator=cpu", "pictures=0", "workers=0")
    r3cnn("evaluate", *call, *TWO_RANKS, "eval_batch_size=1", f"output_dir={tmp_path}/two")
    r3cnn("evaluate", *call, "trainer.devices=1", "eval_batch_size=1", f"output_dir={tmp_path}/one")
    one, two = (tmp_path / name for name in ("one", "two"))
    assert (one / "metrics.json").read_text() == (two / "metrics.json").read_text()
    assert (one / "detections.json").read_text() == (two / "detections.json").read_text()


@pytest.mark.slow
def test_two_ranks_train_and_write_one_outcome(tmp_path: Path) -> None:
    settings = [*TINY_RUN, "trainer.max_steps=2", "pictures=0", f"output_dir={tmp_path}", *TWO_RANKS]
    r3cnn("train", *settings, "data.batch_size=2")
    assert json.loads((tmp_path / "metrics.json").read_text())["images"] == {"seen": 3, "total": 3}
    assert "= 0.004 x 4/16 images per step" in (tmp_path / "train.log").read_text()
