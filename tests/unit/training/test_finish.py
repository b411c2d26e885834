from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from r3cnn.training.finish import keep_if_best


@pytest.mark.parametrize(
    ("mode", "best", "score", "is_kept"),
    [
        ("max", 0.3, 0.4, True),
        ("max", 0.4, 0.4, False),
        ("max", 0.4, math.nan, False),
        ("min", 0.3, 0.2, True),
        ("min", 0.3, 0.4, False),
    ],
)
def test_final_weights_replace_the_best_ones_only_if_they_are_better(
    tmp_path: Path, mode: str, best: float, score: float, is_kept: bool
) -> None:
    (tmp_path / "best.ckpt").write_text("best")
    (tmp_path / "last.ckpt").write_text("last")
    callback = ModelCheckpoint(dirpath=tmp_path, filename="best", monitor="val/mask_ap", mode=mode)
    callback.best_model_score = torch.tensor(best)
    keep_if_best(callback, tmp_path / "last.ckpt", score, step=3)
    assert (tmp_path / "best.ckpt").read_text() == ("last" if is_kept else "best")


def test_a_link_to_the_old_best_weights_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_text("best")
    (tmp_path / "evaluated.ckpt").hardlink_to(tmp_path / "best.ckpt")
    (tmp_path / "last.ckpt").write_text("last")
    callback = ModelCheckpoint(dirpath=tmp_path, filename="best", monitor="val/mask_ap", mode="max")
    callback.best_model_score = torch.tensor(0.1)
    keep_if_best(callback, tmp_path / "last.ckpt", 0.2, step=3)
    assert (tmp_path / "best.ckpt").read_text() == "last"
    assert (tmp_path / "evaluated.ckpt").read_text() == "best"


@pytest.mark.parametrize("score", [0.2, math.nan])
def test_the_only_weights_are_the_best_ones(tmp_path: Path, score: float) -> None:
    (tmp_path / "last.ckpt").write_text("last")
    callback = ModelCheckpoint(dirpath=tmp_path, filename="best", monitor="val/mask_ap", mode="max")
    keep_if_best(callback, tmp_path / "last.ckpt", score, step=3)
    assert (tmp_path / "best.ckpt").read_text() == "last"
