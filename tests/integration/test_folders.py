"""The folder of a run: what it does with files that are there, and what it leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from tiny_runs import Cli, Train


def test_a_checkpoint_is_evaluated_from_any_folder_and_kept_beside_its_metrics(
    train_tiny: Train, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = train_tiny("trainer.max_steps=1", "trainer.val_check_interval=100", "pictures=0", "data.root=./drawn")
    monkeypatch.chdir(tmp_path / "there")
    cli("evaluate", f"checkpoint={run}/checkpoints/last.ckpt", "pictures=0", f"output_dir={tmp_path}/out")
    assert (tmp_path / "out" / "metrics.json").read_text() == (run / "metrics.json").read_text()
    parts = {"config.yaml", "checkpoints", "detections.json", "metrics.json"}
    assert parts <= {path.name for path in (tmp_path / "out").iterdir()}
    assert (tmp_path / "out/checkpoints/evaluated.ckpt").read_bytes() == (run / "checkpoints/last.ckpt").read_bytes()
    assert list((tmp_path / "there").iterdir()) == []


def test_a_new_run_in_a_used_folder_keeps_nothing_of_the_old_one_but_what_others_put_there(
    train_tiny: Train, tmp_path: Path
) -> None:
    for name in ("checkpoints/best.ckpt", "checkpoints/old.ckpt", "pictures/99_loops.png", "pictures/mine.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("of the old run")
    train_tiny("trainer.max_steps=1", "trainer.val_check_interval=100", "pictures=0", folder=tmp_path)
    assert torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)["global_step"] == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    pictures = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert pictures == ["mine.png", "roi_statistics.png", "roi_statistics_train.png", "training_curves.png"]


def test_the_ap_of_every_loop_and_class_is_in_the_log_and_in_the_table_of_numbers(
    train_tiny: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train_tiny("trainer.max_steps=1", "trainer.val_check_interval=1", "pictures=0")
    printed, text = capfd.readouterr(), (run / "train.log").read_text()
    for title in ("Average precision after each loop", "Average precision per class"):
        assert title in text
        assert title in printed.out
        assert title not in printed.err
    metrics = json.loads((run / "metrics.json").read_text())["per_class"]
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/mask_ap"]]
    found = {name: {kind: rows[-1][f"val/class/{name}/{kind}_ap"] for kind in ("box", "mask")} for name in metrics}
    assert {name: {kind: float(ap) for kind, ap in kinds.items()} for name, kinds in found.items()} == {
        name: {kind: pytest.approx(ap) for kind, ap in kinds.items()} for name, kinds in metrics.items()
    }
