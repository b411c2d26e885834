from __future__ import annotations

import os
import shutil
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from r3cnn.cli.parts import own_checkpoints
from r3cnn.training.build import instantiate
from r3cnn.training.checkpoint_io import PATHS, WholeFileCheckpointIO, link_or_copy
from r3cnn.training.checkpoint_io import ModelCheckpoint as OurCheckpoint
from r3cnn.training.finish import keep_if_best


class Breaks:
    def __reduce__(self) -> tuple[type, tuple[()]]:
        raise KeyboardInterrupt


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeFileCheckpointIO().save_checkpoint({"weights": torch.arange(3)}, path)
    WholeFileCheckpointIO().save_checkpoint({"weights": torch.arange(5)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["weights"], torch.arange(5))
    assert [*path.parent.iterdir()] == [path]


def test_a_checkpoint_that_was_not_finished_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    WholeFileCheckpointIO().save_checkpoint({"step": 1}, path)
    with pytest.raises(KeyboardInterrupt):
        WholeFileCheckpointIO().save_checkpoint({"step": 2, "weights": torch.zeros(1000), "end": Breaks()}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [*tmp_path.iterdir()] == [path]


def test_a_checkpoint_that_finds_no_room_is_named_with_the_reason_and_the_old_one_stays(
    tmp_path: Path, small_files: None
) -> None:
    path = tmp_path / "last.ckpt"
    WholeFileCheckpointIO().save_checkpoint({"step": 1}, path)
    for content in (torch.zeros(10**5), {str(k): torch.zeros(100) for k in range(500)}):
        with pytest.raises(OSError, match=r"File too large: '.*/last\.ckpt'"):
            WholeFileCheckpointIO().save_checkpoint({"step": 2, "content": content}, path)
        assert torch.load(path, weights_only=True) == {"step": 1}
        assert [*tmp_path.iterdir()] == [path]


def test_the_file_is_never_outside_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    WholeFileCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_remote_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="local file systems only"):
        WholeFileCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt", storage_options={"key": 1})


class Scored(lightning.LightningModule):
    """Logs one of the given scores after every step."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.scores = scores

    def training_step(self, batch: torch.Tensor, batch_index: int) -> torch.Tensor:
        return self.layer(batch).sum()

    def validation_step(self, batch: torch.Tensor, batch_index: int) -> None:
        self.log("val/mask_ap", self.scores[self.global_step - 1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, scores: list[float], **settings: object) -> ModelCheckpoint:
    target = "lightning.pytorch.callbacks.ModelCheckpoint"
    best = {"_target_": target, "dirpath": str(folder), "filename": "best", "monitor": "val/mask_ap", "mode": "max"}
    callback = instantiate(own_checkpoints({**best, "enable_version_counter": False, **settings}))
    assert isinstance(callback, ModelCheckpoint)
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        max_steps=len(scores),
        val_check_interval=1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    rows = DataLoader(torch.ones(2, 1))
    trainer.fit(Scored(scores), rows, rows)
    return callback


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (1, ["best.ckpt"]),
        (2, ["best-2-0.5000.ckpt", "best-4-0.4000.ckpt", "best.ckpt"]),
        (-1, [*(f"best-{step}-0.{ap}000.ckpt" for step, ap in enumerate((1, 5, 3, 4, 2), 1)), "best.ckpt"]),
    ],
)
def test_of_several_checkpoints_under_one_name_the_name_itself_is_that_of_the_best(
    tmp_path: Path, kept: int, expected: list[str]
) -> None:
    fit(tmp_path, [0.1, 0.5, 0.3, 0.4, 0.2], save_top_k=kept)
    assert names(tmp_path) == expected
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.parametrize(("score", "is_best", "steps"), [(0.9, True, {2, 5}), (0.45, False, {2, 4})])
def test_final_weights_take_the_place_of_the_worst_of_several_if_they_are_the_best(
    tmp_path: Path, score: float, is_best: bool, steps: set[int]
) -> None:
    callback = fit(tmp_path / "checkpoints", [0.1, 0.5, 0.3, 0.4, 0.2], save_top_k=2)
    torch.save({"global_step": 5, "callbacks": {}}, tmp_path / "last.ckpt")
    keep_if_best(callback, tmp_path / "last.ckpt", score, step=5)
    assert {int(name.split("-")[1]) for name in names(tmp_path / "checkpoints") if "-" in name} == steps
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == (5 if is_best else 2)


def state_of(folder: Path, **changes: object) -> dict[str, object]:
    """What Lightning's own callback leaves in a checkpoint."""
    best, folder_name = str(folder / "best.ckpt"), str(folder)
    scores = {"best_model_score": torch.tensor(0.5), "current_score": torch.tensor(0.5), "kth_value": torch.tensor(0.5)}
    paths = {"best_model_path": best, "kth_best_model_path": best, "last_model_path": "", "dirpath": folder_name}
    return {"monitor": "val/mask_ap", **scores, **paths, "best_k_models": {best: torch.tensor(0.5)}, **changes}


def resumed_with(folder: Path, state: dict[str, object]) -> ModelCheckpoint:
    callback = OurCheckpoint(dirpath=folder, filename="best", monitor="val/mask_ap", mode="max")
    callback.load_state_dict(state)
    return callback


def test_a_moved_run_keeps_its_best_score_whether_its_checkpoint_is_an_old_or_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "best.ckpt").touch()
    old = resumed_with(tmp_path / "new", state_of(Path("/old/place/checkpoints")))
    assert str(tmp_path) not in str(old.state_dict())
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    for callback in (old, resumed_with(tmp_path / "new", old.state_dict())):
        assert callback.best_model_path == callback.kth_best_model_path == f"{tmp_path}/new/best.ckpt"
        assert callback.best_model_score == callback.kth_value == torch.tensor(0.5)
        assert not callback.check_monitor_top_k(trainer, torch.tensor(0.4))
        assert callback.check_monitor_top_k(trainer, torch.tensor(0.6))
    (tmp_path / "new" / "best.ckpt").unlink()
    assert resumed_with(tmp_path / "new", old.state_dict()).best_model_score is None


ELSEWHERE = (
    "local://{}",
    "file://{}",
    "{}",
    "../precious",
    "http://127.0.0.1:9/x.ckpt",
    "s3://bucket/x.ckpt",
    "memory://x.ckpt",
)


@pytest.mark.parametrize("kind", ["whole", *PATHS, "best_k_models"])
def test_a_foreign_checkpoint_removes_nothing(tmp_path: Path, kind: str) -> None:
    precious, folder = tmp_path / "precious", tmp_path / "run" / "checkpoints"
    for place in (precious, folder):
        place.mkdir(parents=True)
        (place / "mine.ckpt").write_text("mine")
    for form in (*ELSEWHERE, "{}/mine.ckpt", "local://{}/mine.ckpt"):
        path = form.format(precious)
        changes = {"best_k_models": {path: torch.tensor(2.0)}, "dirpath": str(precious)}
        changes |= dict.fromkeys(PATHS, path)
        hostile = changes if kind == "whole" else {kind: changes[kind]}
        callback = resumed_with(folder, state_of(folder, **hostile))
        told = {*(getattr(callback, key) for key in PATHS), *callback.best_k_models}
        assert all(name == "" or Path(name).parent == folder for name in told)
        checkpoints = WholeFileCheckpointIO()
        checkpoints.save_checkpoint({"step": 1}, folder / "last.ckpt")
        for target in (path, precious, precious / "mine.ckpt", folder, folder / "nothing.ckpt"):
            checkpoints.remove_checkpoint(target)
    (folder / "link.ckpt").symlink_to(precious / "mine.ckpt")
    checkpoints.remove_checkpoint(folder / "link.ckpt")
    assert (precious / "mine.ckpt").read_text() == (folder / "link.ckpt").read_text() == "mine"
    assert not Path("local:").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"best_k_models": ["best.ckpt"]},
        {"best_k_models": {"best.ckpt": "0.5"}},
        {"best_k_models": {"best.ckpt": torch.zeros(2)}},
        {"best_k_models": {3: torch.tensor(0.5)}},
        {"best_model_path": None},
        {"last_model_path": ["last.ckpt"]},
        {"current_score": "high"},
    ],
)
def test_a_state_that_is_none_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"ModelCheckpoint\{.*(needed)"):
        resumed_with(tmp_path, state_of(tmp_path, **changes))


def test_names_of_the_users_own_that_tell_checkpoints_apart_stay(tmp_path: Path) -> None:
    fit(tmp_path, [0.1, 0.5], save_top_k=2, filename="at_{step}", auto_insert_metric_name=False)
    assert names(tmp_path) == ["at_1.ckpt", "at_2.ckpt"]


def test_final_weights_take_the_place_of_the_worst_under_names_of_the_users_own_as_well(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    callback = fit(folder, [0.5, 0.3], save_top_k=2, filename="at_{step}", auto_insert_metric_name=False)
    torch.save({"global_step": 3, "callbacks": {}}, tmp_path / "last.ckpt")
    keep_if_best(callback, tmp_path / "last.ckpt", 0.9, step=3)
    assert names(folder) == ["at_1.ckpt", "at_3.ckpt"]


def test_a_name_stays_with_the_old_file_until_it_is_whole_under_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    for name in ("best", "new"):
        (tmp_path / f"{name}.ckpt").write_text(name)
    for broken in ((os, "link"), (shutil, "copyfile")):
        monkeypatch.setattr(*broken, end)
    with pytest.raises(OSError, match="no space"):
        link_or_copy(tmp_path / "new.ckpt", tmp_path / "best.ckpt")
    assert (tmp_path / "best.ckpt").read_text() == "best"
    assert names(tmp_path) == ["best.ckpt", "new.ckpt"]
