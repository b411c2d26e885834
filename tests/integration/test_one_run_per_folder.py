"""A folder belongs to one run at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from tiny_runs import TINY_RUN, Cli

from r3cnn.cli import folder_lock
from r3cnn.cli.folder_lock import LOCK_FILE, sole_writer, writing_below

ONE_STEP = (*TINY_RUN, "trainer.max_steps=1", "pictures=0")


def test_a_second_run_in_a_folder_is_refused_and_touches_nothing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_text("of the other run")
    with FileLock(tmp_path / LOCK_FILE), pytest.raises(ValueError, match="another run is writing into it"):
        cli("train", *ONE_STEP, f"output_dir={tmp_path}")
    assert (tmp_path / "checkpoints" / "last.ckpt").read_text() == "of the other run"


def test_a_job_of_a_sweep_waits_for_the_other_run(tmp_path: Path) -> None:
    order: list[str] = []
    is_held = threading.Event()

    def other_run() -> None:
        with FileLock(tmp_path / LOCK_FILE):
            is_held.set()
            time.sleep(0.3)
            order.append("other")

    thread = threading.Thread(target=other_run)
    thread.start()
    is_held.wait()
    with sole_writer(tmp_path, waits=True):
        order.append("ours")
    thread.join()
    assert order == ["other", "ours"]


def test_the_folder_is_free_after_a_run_that_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), sole_writer(tmp_path, waits=False):
        raise KeyError
    with sole_writer(tmp_path, waits=False):
        assert (tmp_path / LOCK_FILE).is_file()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_written_to_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):  # and nothing is left that would keep the next run out
        with sole_writer(tmp_path):
            (tmp_path / "result.json").write_text("{}")
    assert caplog.text.count("no locks") == 2


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for folder in ("checkpoints", "pictures", "errors"):
        (tmp_path / folder).mkdir()
    mine = [tmp_path / "checkpoints" / name for name in ("last.ckpt", ".hidden", ".a.ckpt", "epoch.1", ".runs.2024")]
    mine += [tmp_path / ".notes.2024", tmp_path / ".result.json.bak"]
    names = (".result.json.12", ".metrics.csv.12", ".image_ids.json.12", "checkpoints/.last.ckpt.4711")
    names += (".config.yaml.3", ".detections_loop1.json.44", "pictures/.7_loops.png.5", "errors/.errors.json.6")
    drafts = [tmp_path / name for name in names]
    for path in (*mine, *drafts):
        path.touch()
    with sole_writer(tmp_path, waits=False):
        assert not any(path.exists() for path in drafts)
    assert all(path.exists() for path in mine)


def test_further_ranks_are_kept_out_by_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with FileLock(tmp_path / LOCK_FILE), sole_writer(tmp_path, waits=False):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def test_one_of_several_ranks_is_refused_since_the_others_would_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    lock = FileLock(tmp_path / LOCK_FILE)
    with lock, pytest.raises(ValueError, match="another run is writing into it"), sole_writer(tmp_path, waits=True):
        pass


TORCHRUN = {"TORCHELASTIC_RUN_ID": "ours", "MASTER_ADDR": "here", "MASTER_PORT": "1", "WORLD_SIZE": "2"}


def rank(patch: pytest.MonkeyPatch, number: int) -> None:
    for name, value in {**TORCHRUN, "RANK": str(number)}.items():
        patch.setenv(name, value)


def test_a_further_rank_is_refused_where_the_first_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "OCCUPIED_SECONDS", 0.5)
    with FileLock(tmp_path / LOCK_FILE):
        for number in (0, 1):
            rank(monkeypatch, number)
            with pytest.raises(ValueError, match="another run is writing into it"), sole_writer(tmp_path):
                pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def test_a_further_rank_goes_on_as_soon_as_the_first_one_has_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def follow() -> None:
        with sole_writer(tmp_path / "run"):
            order.append("further")

    rank(monkeypatch, 1)
    thread = threading.Thread(target=follow)
    thread.start()
    time.sleep(0.5)
    order.append("first")
    rank(monkeypatch, 0)
    with sole_writer(tmp_path / "run"):
        thread.join(10)
    assert order == ["first", "further"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK_FILE]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_no_command_writes_into_the_folder_of_another_that_runs(cli: Cli, trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    image = next(tmp_path.parent.rglob("val/*.png"), None) or next(Path(trained).rglob("*.png"))
    before = snapshot(trained)
    quick = ("trainer.accelerator=cpu", "workers=0", "pictures=0")
    data = f"data.prepare.folder={tmp_path / 'shapes'}"
    commands = (
        ("train", *ONE_STEP, f"output_dir={trained}", "resume=last"),
        ("train", *ONE_STEP, f"output_dir={trained}", "overwrite=true"),
        ("evaluate", f"checkpoint={checkpoint}", f"output_dir={trained}", *quick),
        ("predict", f"checkpoint={checkpoint}", f"source={image}", "device=cpu", f"output_dir={trained}"),
        ("report", f"runs=[{trained}]", f"output_dir={trained}", "significance.resamples=0"),
        ("analyze", "errors", f"run={trained}"),
        ("analyze", "rois", f"runs=[{trained}]", f"output_dir={trained / 'rois'}"),
        ("data", "check", "data=shapes", data, "data.prepare.train=3", "data.prepare.val=3", f"output_dir={trained}"),
        ("data", "browse", "data=shapes", data, "data.prepare.train=3", "data.prepare.val=3", f"output_dir={trained}"),
        ("convert", "to=mmdet", f"input={checkpoint}", f"output={trained / 'theirs.pth'}"),
        ("analyze", "speed", f"checkpoint={checkpoint}", f"output_dir={trained}"),
        ("export", f"checkpoint={checkpoint}", "format=torch_export", f"output={trained / 'net.pt2'}"),
    )
    with FileLock(trained / LOCK_FILE):
        for words in commands:
            with pytest.raises(ValueError, match="another run is writing into it"):
                cli(*words)
    assert snapshot(trained) == before


def test_the_folder_that_is_written_into_counts_and_not_one_above_it_that_was_written_into_as_well(
    tmp_path: Path,
) -> None:
    run, report = tmp_path / "sweep" / "run", tmp_path / "sweep"
    (run / "checkpoints").mkdir(parents=True)
    for folder in (report, run / "checkpoints"):
        (folder / LOCK_FILE).touch()
    for folder in (run, run / "errors", run / "checkpoints"):
        with FileLock(run / LOCK_FILE), pytest.raises(ValueError, match="another run"), writing_below(folder):
            pass
        with FileLock(report / LOCK_FILE), writing_below(folder):
            pass


def test_an_interrupted_training_is_not_evaluated_over(cli: Cli, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "result.json").unlink()
    before = snapshot(folder)
    words = ("evaluate", f"checkpoint={folder / 'checkpoints/last.ckpt'}", "trainer.accelerator=cpu", "workers=0")
    with pytest.raises(ValueError, match=r"training that has not finished.*resume it, or name another folder"):
        cli(*words, f"output_dir={folder}")
    assert snapshot(folder).items() >= before.items()
    cli(*words, "pictures=0", f"output_dir={folder / 'evaluation'}")
    assert snapshot(folder).items() >= before.items()
    assert (folder / "evaluation" / "metrics.json").is_file()


@pytest.fixture
def finished(cli: Cli, tmp_path: Path) -> Path:
    cli("train", *ONE_STEP, f"output_dir={tmp_path}", "resume=auto")
    return tmp_path


@pytest.mark.slow
def test_a_finished_run_is_left_alone_by_resume_auto_and_made_anew_when_asked_to(cli: Cli, finished: Path) -> None:
    result = finished / "result.json"
    written = result.stat().st_mtime_ns
    cli("train", *ONE_STEP, f"output_dir={finished}", "resume=auto", "data.eval_batch_size=1")
    assert result.stat().st_mtime_ns == written
    cli("train", *ONE_STEP, f"output_dir={finished}", "overwrite=true")
    assert result.stat().st_mtime_ns > written


@pytest.mark.slow
def test_what_another_run_finished_while_this_one_waited_is_left_alone(cli: Cli, finished: Path) -> None:
    result, log, aside = finished / "result.json", finished / "train.log", finished / "aside.json"
    files = {path: path.stat().st_mtime_ns for path in (result, finished / "metrics.json", finished / "config.yaml")}
    result.rename(aside)
    lock = FileLock(finished / LOCK_FILE, thread_local=False)
    lock.acquire()

    def finish() -> None:
        end = time.monotonic() + 60
        while "waits until it has ended" not in log.read_text() and time.monotonic() < end:
            time.sleep(0.02)
        aside.rename(result)
        lock.release()

    thread = threading.Thread(target=finish)
    thread.start()
    cli("train", *ONE_STEP, f"output_dir={finished}", "resume=auto")
    thread.join()
    assert f"another run is writing into {finished}" in log.read_text()
    assert f"finished by an earlier run: {result}" in log.read_text()
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.slow
def test_resume_auto_goes_on_with_no_other_configuration(cli: Cli, finished: Path) -> None:
    record = json.loads((finished / "result.json").read_text())
    other = ("train", *ONE_STEP, f"output_dir={finished}", "resume=auto", "optimizer.lr=0.5")
    expected = (
        rf"{record['name']} {record['hash']}, and this is [0-9a-f]{{12}}, which differs in optimizer.lr \(.* there, 0.5"
    )
    with pytest.raises(ValueError, match=f"finished run {expected}"):
        cli(*other)
    (finished / "result.json").unlink()
    with pytest.raises(ValueError, match=f"holds the run {record['hash']}, and this is .* optimizer.lr"):
        cli(*other)
    cli("train", *ONE_STEP, f"output_dir={finished}", "resume=auto")
    assert (finished / "result.json").is_file()
