"""The command line as a user meets it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny_runs import Cli, Train

from r3cnn.cli.main import is_news, main


def shell(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`python -m r3cnn` in a process of its own, started in ``folder``."""
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    command = [sys.executable, "-m", "r3cnn", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def test_help_lists_every_command(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli("--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in ("train", "evaluate", "predict", "params"))


def test_an_unknown_command_ends_with_a_suggestion(cli: Cli) -> None:
    with pytest.raises(ValueError, match="did you mean 'train'"):
        cli("trian")


@pytest.mark.slow
def test_params_prints_one_json_object_and_writes_nothing(tmp_path: Path) -> None:
    done = shell("params", "experiment=r3cnn_naive", "format=json", folder=tmp_path)
    counts = json.loads(done.stdout)
    assert done.returncode == 0
    assert counts["trainable"] == sum(counts["submodules"].values()) == 43_912_884
    assert list(tmp_path.iterdir()) == []


def test_params_counts_do_not_depend_on_the_number_of_loops(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    schedules = {
        1: ("recursion.heads=[0]", "recursion.iou_thresholds=[0.5]", "recursion.loss_weights=[1]"),
        4: (
            "recursion.heads=[0,0,0,0]",
            "recursion.iou_thresholds=[0.5,0.6,0.7,0.8]",
            "recursion.loss_weights=[1,0.75,0.5,0.3]",
        ),
    }
    for schedule in schedules.values():
        cli("params", "experiment=r3cnn_naive", "format=json", *schedule)
        assert json.loads(capsys.readouterr().out)["trainable"] == 43_912_884


def test_params_of_a_custom_data_set_reads_no_file_and_asks_for_its_classes(
    cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ("params", "experiment=r3cnn_naive", "data=custom", "format=json")
    files = [f"data.{split}.{kind}=/absent" for split in ("train", "val") for kind in ("images", "annotations")]
    for arguments in (call, (*call, *files)):
        with pytest.raises(ValueError, match=r"data\.classes=\["):
            cli(*arguments)
    cli(*call, f"data.classes=[{','.join(f'class{number}' for number in range(80))}]")
    assert json.loads(capsys.readouterr().out)["trainable"] == 43_912_884


def test_params_prints_a_table_by_default(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    cli("params", "experiment=mask_rcnn")
    text = capsys.readouterr().out
    assert "roi_head.bbox_head" in text
    assert "44,170,992" in text


@pytest.mark.parametrize(
    ("command", "word", "message"),
    [
        ("params", "+colour=red", "colour=red: nothing reads colour"),
        ("params", "+colour.dark=red", "colour.dark=red: nothing reads colour"),
        ("report", "+html.pictures.sides=3", "html.pictures.sides=3: nothing reads html.pictures.sides"),
        ("params", "++channels=64", None),
        ("params", "+width=64 channels=${width}", None),
        ("params", "+width=64 channels=${nowhere}", "Interpolation key 'nowhere' not found\n *full_key: channels"),
    ],
)
def test_a_new_key_that_nothing_reads_is_refused(cli: Cli, command: str, word: str, message: str | None) -> None:
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        cli(command, *word.split())


@pytest.mark.parametrize("given", ["null", "${nowhere}", "here/file", "/proc/none"])
def test_an_output_dir_that_can_be_no_folder_is_named(given: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").touch()
    ended = shell("evaluate", f"output_dir={given}", folder=tmp_path)
    assert ended.returncode == 2
    assert re.fullmatch(r"r3cnn: output_dir[:=].*a folder is needed.*\n", ended.stderr)


class EndedWhileWriting(io.BytesIO):
    """A file in whose writing a signal arrives."""

    def write(self, data: object) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0


def test_a_signal_within_a_library_that_raises_another_error_over_it_ends_the_command_with_its_status(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(_: object) -> None:
        torch.save({"weights": torch.zeros(1000)}, EndedWhileWriting())

    monkeypatch.setattr("r3cnn.cli.params.run", run)
    monkeypatch.setattr(sys, "argv", ["r3cnn", "params", "experiment=mask_rcnn"])
    monkeypatch.setattr(logging, "raiseExceptions", True)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 143
    assert capfd.readouterr().err == "r3cnn: ended by SIGTERM\n"


def test_params_refuses_parts_that_do_not_fit_together(cli: Cli) -> None:
    with pytest.raises(ValueError, match=r"^model\.rpn: strides of rpn\.anchors are \[4, 8, 16, 32, 48\]"):
        cli("params", "experiment=mask_rcnn", "rpn.anchors.strides=[4,8,16,32,48]")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment=nonsense", "nonsense"),
        ("traner.max_steps=3", "traner"),
        ("recursion.loss_weights=[1,2]", "loss_weights has 2 entries, heads has 3"),
        ("recursion.heads=[0,2,2]", "without a gap"),
        ("recursion.heads", "missing EQUAL"),
    ],
)
def test_a_wrong_setting_ends_with_a_message_and_a_status(override: str, message: str, tmp_path: Path) -> None:
    done = shell("params", override, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("r3cnn: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_multirun_may_stand_anywhere_and_every_failed_job_is_named_in_a_line(
    cli: Cli, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = [f"runs=[{tmp_path}/a],[{tmp_path}/b]", f"output_dir={tmp_path}", f"hydra.sweep.dir={tmp_path}"]
    for place in range(4):
        words = ["report", *settings]
        words.insert(place, "-m")
        with pytest.raises(ValueError, match=r"no run to report: .*a has no metrics\.json"):
            cli(*words)
        errors = capfd.readouterr().err
        for name in "ab":
            assert (
                f"failed: runs=[{tmp_path}/{name}] output_dir={tmp_path}: runs: no run to report: {tmp_path}/{name}"
                in errors
            )
        assert "Traceback" not in errors
        assert "HYDRA_FULL_ERROR" not in errors


def test_remarks_of_lightning_that_tell_a_user_something_are_shown() -> None:
    def shown(name: str, level: int, text: str) -> bool:
        return is_news(logging.LogRecord(name, level, "", 0, text, None, None))

    assert shown("lightning.pytorch.callbacks.timer", logging.INFO, "Time limit reached. Elapsed time is 0:00:01.")
    assert shown("lightning.pytorch.utilities.rank_zero", logging.INFO, "`Trainer.fit` stopped: No training batches.")
    assert shown("lightning.pytorch.utilities.rank_zero", logging.WARNING, "GPU available but not used")
    assert shown("r3cnn.cli.train", logging.INFO, "GPU available")
    assert not shown("lightning.pytorch.utilities.rank_zero", logging.INFO, "GPU available: False, used: False")


def test_a_run_in_a_folder_of_any_name_is_found_by_that_name(
    train_tiny: Train, cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "my runs (1)" / "a=b,c [x] 'q' \"d\" файл $e #~\\"
    train_tiny("trainer.max_steps=1", "pictures=1", folder=run)
    assert json.loads((run / "result.json").read_text())["metrics"]["images"]["seen"] == 3
    said = (run / "train.log").read_text()
    assert "everything of this run goes to" in said
    assert not any(word in said for word in ("litlogger", "TPU", "configured so", "max_steps", "weights_only"))
    cli("predict", f"checkpoint={run}/checkpoints/last.ckpt", f"source={run}/pictures", f"output_dir={run}/found")
    assert (run / "found" / "detections.json").is_file()
    cli("report", f"runs={run}", f"output_dir={run}/report")
    assert str(run / "report") in capsys.readouterr().out
