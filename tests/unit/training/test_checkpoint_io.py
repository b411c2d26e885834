from __future__ import annotations

from pathlib import Path

import pytest
import torch

from r3cnn.training.checkpoint_io import WholeFileCheckpointIO


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


def test_the_file_is_never_outside_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    WholeFileCheckpointIO().save_checkpoint({"step": 1}, tmp_path / "last.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_remote_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="local file systems only"):
        WholeFileCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt", storage_options={"key": 1})
