from __future__ import annotations

import os
from pathlib import Path

import pytest

from r3cnn.cli.outcome import keep_evaluated


def test_the_evaluated_checkpoint_replaces_an_earlier_one(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / f"{text}.ckpt").write_text(text)
        keep_evaluated(tmp_path / f"{text}.ckpt", tmp_path)
        assert (tmp_path / "checkpoints" / "evaluated.ckpt").read_text() == text
    assert (tmp_path / "first.ckpt").read_text() == "first"


def test_the_evaluated_checkpoint_may_be_the_one_that_was_kept(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").write_text("best")
    for _ in range(2):
        keep_evaluated(tmp_path / "best.ckpt", tmp_path)
    kept = tmp_path / "checkpoints" / "evaluated.ckpt"
    keep_evaluated(kept, tmp_path)
    assert kept.read_text() == "best"


def test_without_links_the_evaluated_checkpoint_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "best.ckpt").write_text("best")
    keep_evaluated(tmp_path / "best.ckpt", tmp_path)
    kept = tmp_path / "checkpoints" / "evaluated.ckpt"
    assert kept.read_text() == "best"
    assert not kept.samefile(tmp_path / "best.ckpt")
