"""Several ranks, a failed run, a service that is lost, and Weights & Biases switched off."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from killed_runs import KILLED, Moment, run
from tiny_runs import TINY_RUN, Cli
from wandb_files import environment, read_run, runs_in

from r3cnn.cli import dashboard

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_only_the_first_rank_writes_and_the_id_of_an_agent_wins(tmp_path: Path) -> None:
    settings = (*TINY_RUN, f"output_dir={tmp_path}", "logger=wandb", "trainer.max_steps=1", "data.batch_size=2")
    ranks = ("trainer.devices=2", "trainer.strategy=ddp", "pictures=0", "logger.wandb.pictures=0")
    with environment(WANDB_RUN_ID="fromagent", OMP_NUM_THREADS="1"):
        command = [sys.executable, "-m", "r3cnn", "train", *settings, *ranks]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    (folder,) = runs_in(tmp_path)
    found = read_run(folder)
    assert found.run.run_id == "fromagent"
    assert found.run.run_group == "demo"
    assert len(found.values("train/loss")) == 1
    assert (tmp_path / "wandb" / "train.id").read_text() == "fromagent\n"


def test_a_run_that_fails_is_marked_as_failed_and_one_that_begins_anew_is_another(cli: Cli, tmp_path: Path) -> None:
    earlier = tmp_path / "wandb" / "train.id"
    earlier.parent.mkdir()
    earlier.write_text("earlier\n")  # of a run that left no checkpoint
    settings = (*TINY_RUN, f"output_dir={tmp_path}", "logger=wandb", "optimizer.lr=1e30", "lr_schedule.warmup_steps=0")
    with environment(), pytest.raises(FloatingPointError, match="not finite"):
        cli("train", *settings, "trainer.max_steps=20", "resume=auto")
    (folder,) = runs_in(tmp_path)
    found = read_run(folder)
    assert found.exit_code == 1
    assert found.run.run_id not in ("", "earlier")


def test_a_service_lost_after_the_result_is_no_failure_and_switched_off_nothing_is_left_behind(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = dashboard._report

    def report_and_lose_the_service(*arguments: object) -> None:
        assert (tmp_path / "result.json").is_file()
        report(*arguments)  # type: ignore[arg-type]
        raise BrokenPipeError("the service is gone")

    monkeypatch.setattr(dashboard, "_report", report_and_lose_the_service)
    settings = (*TINY_RUN, f"output_dir={tmp_path}", "logger=csv_wandb", "trainer.max_steps=1", "pictures=0")
    with environment(WANDB_MODE="disabled"):
        cli("train", *settings)
    assert (
        "left out what is left to tell Weights & Biases: BrokenPipeError: the service is gone"
        in capsys.readouterr().err
    )
    assert (tmp_path / "result.json").is_file()
    assert not (tmp_path / "wandb").exists()


def test_a_run_that_is_killed_and_continued_from_a_copy_of_its_folder_is_one_run_that_says_every_step_once(
    tmp_path: Path,
) -> None:
    words = ["train", *TINY_RUN, "logger=wandb", "logger.wandb.pictures=0", "logger.wandb.panels=0", "pictures=0"]
    words += ["resume=auto", "trainer.max_steps=6", "callbacks.last.every_n_train_steps=2"]
    words += ["trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=1"]
    with environment():
        flushed = Moment("step", 6, pause=20.0)  # the library writes every 15 seconds
        killed = run([*words, f"output_dir={tmp_path}/here"], tmp_path / "log", flushed)
        assert read_run(runs_in(tmp_path / "here")[0]).values("train/loss")[4:]
        shutil.copytree(tmp_path / "here", tmp_path / "there")
        continued = run([*words, f"output_dir={tmp_path}/there"], tmp_path / "log")
    assert (killed, continued) == (KILLED, 0), (tmp_path / "log").read_text()
    parts = [read_run(folder) for folder in sorted(runs_in(tmp_path / "there"), key=lambda path: path.name)]
    assert len({part.run.run_id for part in parts}) == 1
    history = [row for part in parts for row in part.history]
    steps = {
        name: [row["trainer/global_step"] for row in history if name in row]
        for name in ("train/loss", "val/mask_ap", "rois/val/loop1", "rois/train/loop1", "tables/ap_per_loop")
    }
    assert steps == {
        "train/loss": [*range(6)],
        "val/mask_ap": [2, 5],
        "rois/val/loop1": [3, 6],
        "rois/train/loop1": [3, 6],
        "tables/ap_per_loop": [6],
    }
