from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from r3cnn.schedule import LoopSchedule
from r3cnn.training.wandb_report import ap_names
from r3cnn.training.wandb_run import (
    RunFacts,
    WandbRun,
    _warn_once,
    run_id,
    schedule_tags,
    threshold_order,
    without_stopping_the_run,
)

PAPER = LoopSchedule([0, 0, 0], [0.5, 0.6, 0.7], [1, 0.75, 0.5], [0, 0, 0], [[0.1, 0.1, 0.2, 0.2]], True, "released")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_RUN_ID", "WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_continued_run_has_the_id_that_was_kept_and_a_fresh_one_has_its_own(tmp_path: Path) -> None:
    kept = tmp_path / "train.id"
    kept.write_text("abc\n")
    assert run_id(kept, is_continued=True) == "abc"
    assert run_id(kept, is_continued=False) != run_id(kept, is_continued=False)
    assert run_id(tmp_path / "none", is_continued=True) not in (None, "abc")


def test_an_id_in_the_environment_is_left_to_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "agent")
    (tmp_path / "train.id").write_text("abc\n")
    assert run_id(tmp_path / "train.id", is_continued=True) is None


def test_tags_name_loops_heads_order_and_feedback() -> None:
    assert schedule_tags(PAPER) == ("loops-3", "heads-1", "thresholds-rising", "feedback-released")
    more = LoopSchedule([0, 1], [0.6, 0.5], [1, 1], [0, 1, 1], [[0.1, 0.1, 0.2, 0.2]], True, "off")
    assert schedule_tags(more) == ("loops-2", "heads-2", "thresholds-falling", "eval-loops-3", "feedback-off")


@pytest.mark.parametrize(
    ("thresholds", "order"),
    [([0.5], "constant"), ([0.5, 0.5], "constant"), ([0.5, 0.6], "rising"), ([0.7, 0.5], "falling")],
)
def test_the_order_of_thresholds_has_a_name(thresholds: list[float], order: str) -> None:
    assert threshold_order(thresholds) == order


def test_thresholds_that_rise_and_fall_are_mixed() -> None:
    assert threshold_order([0.5, 0.7, 0.6]) == "mixed"


FACTS = RunFacts(name="demo-seed0", group="table3", tags=("demo",), config={"seed": 0})


def logger(folder: Path, facts: RunFacts = FACTS, **settings: object) -> WandbRun:
    names = {"project": "p", "entity": None, "name": None, "group": None, "tags": ["mine", "demo"]}
    media = {"pictures": 0, "panels": 0, "score_threshold": 0.5, "checkpoints": False}
    return WandbRun(facts, folder=str(folder), **{**names, **media, **settings})


def test_what_the_user_sets_wins_over_the_facts(tmp_path: Path) -> None:
    ours, theirs = logger(tmp_path)._wandb_init, logger(tmp_path, name="mine", group="other")._wandb_init
    assert (ours["name"], ours["group"], ours["tags"]) == ("demo-seed0", "table3", ["demo", "mine"])
    assert (theirs["name"], theirs["group"]) == ("mine", "other")
    assert not (tmp_path / "wandb").exists()  # nothing begins before the trainer asks for it


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pictures": -1}, r"pictures must be in \[0, inf\), got -1"),
        ({"panels": -2}, r"panels must be in \[0, inf\), got -2"),
        ({"score_threshold": 1.5}, r"score_threshold must be in \[0, 1\], got 1.5"),
        ({"score_threshold": math.nan}, r"score_threshold must be in \[0, 1\], got nan"),
        ({"project": ""}, "project is empty: a name is needed"),
        ({"project": "a/b"}, "Invalid project name 'a/b'"),
        ({"project": "p" * 200}, "Invalid project name"),
    ],
)
def test_settings_that_the_library_or_its_server_would_refuse_later_are_refused_at_once(
    tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises((ValueError, wandb.Error), match=message):
        logger(tmp_path, **wrong)


def test_without_a_login_a_run_is_offline_unless_the_environment_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert logger(tmp_path)._wandb_init["mode"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert logger(tmp_path)._wandb_init["mode"] is None
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "word")
    assert logger(tmp_path)._wandb_init["mode"] is None


WRITTEN_BY_INIT = b"[default]\nmode = offline\nentity = me\nproject = mine\nbase_url = https://api.wandb.ai\n"


@pytest.mark.parametrize(
    "settings",
    [
        b"[default]\nbase_url = http://127.0.0.1:9\n",
        b"[DEFAULT]\nbase_url = http://127.0.0.1:9\n[default]\n",
        b"[default]\n# \xff\nhttp_proxy = somebody\n",
        b"[default]\nmode = online\nhttps_proxy = http://127.0.0.1:9\n",
        b"[default]\nsave_code = true\n",
    ],
)
@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
def test_a_file_in_the_current_folder_does_not_decide_where_runs_go(
    settings: bytes, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "settings").write_bytes(WRITTEN_BY_INIT)
    logger(tmp_path)
    (tmp_path / folder / "settings").write_bytes(settings)
    with pytest.raises(ValueError, match=rf"{folder}/settings sets \w+ to .*: if it is yours, say WANDB_"):
        logger(tmp_path)
    (tmp_path / folder / "settings").unlink()
    os.mkfifo(tmp_path / folder / "settings")
    with pytest.raises(ValueError, match="is a named pipe"):
        logger(tmp_path)


@pytest.mark.parametrize(
    "error", [wandb.errors.CommError("refused"), BrokenPipeError("gone"), OSError(28, "No space left on device")]
)
def test_what_the_dashboard_cannot_be_told_is_said_once(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    _warn_once.cache_clear()
    for _ in range(3):
        with without_stopping_the_run():
            raise error
    (said,) = caplog.messages
    assert "was not told everything" in said
    assert str(error) in said


def test_an_error_of_our_own_is_not_hidden() -> None:
    with pytest.raises(KeyError), without_stopping_the_run():
        raise KeyError("a bug")


def test_without_the_library_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it fails
    with pytest.raises(ValueError, match="pip install wandb"):
        logger(tmp_path)


def test_our_modules_do_not_load_the_library_for_other_loggers() -> None:
    code = "import sys, r3cnn.cli.train, r3cnn.cli.evaluate; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_ap_of_the_result_and_of_every_loop_has_its_name() -> None:
    names = [*ap_names(2)]
    assert len(names) == len({*names}) == 3 * 2 * 6
    assert {"val/mask_ap", "val/loop1/box_ap50", "val/loop2/mask_ap_large"} <= {*names}


def test_names_are_cut_to_what_the_library_takes(tmp_path: Path) -> None:
    facts = RunFacts(name="run " * 100, group="g\n" * 100, tags=("", "table\ud83d", "t" * 100, "t" * 100))
    run = logger(tmp_path, facts, tags=[])
    assert run._wandb_init["tags"] == ["table\\ud83d", f"{'t' * 32}…{'t' * 31}"]
    assert len(run._wandb_init["name"]) == len(run._wandb_init["group"]) == 128
