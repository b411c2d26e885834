from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from r3cnn.training.checkpoint_io import ModelCheckpoint
from r3cnn.training.finish import keep_if_best


def write(path: Path) -> None:
    torch.save({"name": path.stem, "callbacks": {}}, path)


def name_in(path: Path) -> str:
    return str(torch.load(path, weights_only=True)["name"])


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
    write(tmp_path / "best.ckpt")
    write(tmp_path / "last.ckpt")
    callback = ModelCheckpoint(dirpath=tmp_path, filename="best", monitor="val/mask_ap", mode=mode)
    callback.best_model_score = torch.tensor(best)
    keep_if_best(callback, tmp_path / "last.ckpt", score, step=3)
    assert name_in(tmp_path / "best.ckpt") == ("last" if is_kept else "best")


def test_a_link_to_the_old_best_weights_keeps_them(tmp_path: Path) -> None:
    write(tmp_path / "best.ckpt")
    (tmp_path / "evaluated.ckpt").hardlink_to(tmp_path / "best.ckpt")
    write(tmp_path / "last.ckpt")
    callback = ModelCheckpoint(dirpath=tmp_path, filename="best", monitor="val/mask_ap", mode="max")
    callback.best_model_score = torch.tensor(0.1)
    keep_if_best(callback, tmp_path / "last.ckpt", 0.2, step=3)
    assert name_in(tmp_path / "best.ckpt") == "last"
    assert name_in(tmp_path / "evaluated.ckpt") == "best"


@pytest.mark.parametrize("place", ["best.ckpt", "last.ckpt"])
def test_a_run_that_is_ended_while_the_best_weights_are_replaced_keeps_whole_ones_and_replaces_them_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    write(tmp_path / "best.ckpt")
    write(tmp_path / "last.ckpt")
    settings = {"dirpath": tmp_path, "filename": "best", "monitor": "val/mask_ap", "mode": "max"}
    callback = ModelCheckpoint(**settings)
    callback.best_model_score = torch.tensor(0.1)

    def replace(draft: Path, target: Path) -> None:
        if target.name == place:
            raise KeyboardInterrupt
        os.replace(draft, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            keep_if_best(callback, tmp_path / "last.ckpt", 0.2, step=3)
    assert name_in(tmp_path / "best.ckpt") == ("best" if place == "best.ckpt" else "last")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"] == {}  # which says nothing untrue
    resumed = ModelCheckpoint(**settings)
    resumed.best_model_score = torch.tensor(0.1)
    keep_if_best(resumed, tmp_path / "last.ckpt", 0.2, step=3)
    assert name_in(tmp_path / "best.ckpt") == "last"


@pytest.mark.parametrize("score", [0.2, math.nan])
def test_the_only_weights_are_the_best_ones(tmp_path: Path, score: float) -> None:
    write(tmp_path / "last.ckpt")
    callback = ModelCheckpoint(dirpath=tmp_path, filename="best", monitor="val/mask_ap", mode="max")
    keep_if_best(callback, tmp_path / "last.ckpt", score, step=3)
    assert name_in(tmp_path / "best.ckpt") == "last"


@pytest.mark.parametrize("save_top_k", [1, 2])
def test_a_run_that_is_resumed_knows_that_its_final_weights_were_the_best(tmp_path: Path, save_top_k: int) -> None:
    write(tmp_path / "last.ckpt")
    write(tmp_path / "best.ckpt")
    settings = {"dirpath": tmp_path, "filename": "best", "monitor": "val/mask_ap", "mode": "max"}
    callback = ModelCheckpoint(**settings, save_top_k=save_top_k)
    callback.best_k_models = {str(tmp_path / "best.ckpt"): torch.tensor(0.3)}
    callback.best_model_path, callback.best_model_score = str(tmp_path / "best.ckpt"), torch.tensor(0.3)
    keep_if_best(callback, tmp_path / "last.ckpt", 0.4, step=3)
    resumed = ModelCheckpoint(**settings, save_top_k=save_top_k)
    for name in ("best.ckpt", "last.ckpt"):
        resumed.load_state_dict(torch.load(tmp_path / name, weights_only=True)["callbacks"][callback.state_key])
        assert resumed.best_model_score == pytest.approx(0.4)
        assert max(map(float, resumed.best_k_models.values())) == pytest.approx(0.4)
