from __future__ import annotations

import csv
from pathlib import Path

import pytest

from r3cnn.training.loggers import CsvLogger, TensorBoardLogger, has_wandb_login


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_column_leaves_earlier_rows_as_they_are(tmp_path: Path) -> None:
    logger = CsvLogger(str(tmp_path), flush_every=1)
    logger.log_metrics({"loss": 2.0}, step=0)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.log_metrics({"ap": 0.5}, step=1)
    rows = table(tmp_path)
    assert [row["loss"] for row in rows] == ["2.0", "1.0", ""]
    assert [row["ap"] for row in rows] == ["", "", "0.5"]


def test_rows_wait_until_there_are_enough_or_the_run_ends(tmp_path: Path) -> None:
    logger = CsvLogger(str(tmp_path), flush_every=2)
    logger.log_metrics({"loss": 1.0}, step=0)
    assert not (tmp_path / "metrics.csv").exists()
    logger.finalize("success")
    assert [row["step"] for row in table(tmp_path)] == ["0"]


def test_a_second_logger_appends_after_the_step_that_is_kept(tmp_path: Path) -> None:
    first = CsvLogger(str(tmp_path), flush_every=1)
    for step in range(4):
        first.log_metrics({"loss": float(step)}, step=step)
    second = CsvLogger(str(tmp_path), flush_every=1)
    second.keep_rows_before(2)
    second.log_metrics({"loss": 9.0}, step=2)
    assert [(row["step"], row["loss"]) for row in table(tmp_path)] == [("0", "0.0"), ("1", "1.0"), ("2", "9.0")]


def test_a_new_column_that_finds_no_room_leaves_the_table_whole(tmp_path: Path, small_files: None) -> None:
    logger = CsvLogger(str(tmp_path), flush_every=1)
    for step in range(100):
        logger.log_metrics({"loss": float(step)}, step=step)
    before = table(tmp_path)
    with pytest.raises(OSError, match="File too large"):
        logger.log_metrics({f"val/{number}": 0.5 for number in range(1000)}, step=100)
    assert table(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize(
    ("left", "steps"),
    [
        (b"step,loss\r\n0,0.5\r\n1,0.2", ["0", "5"]),
        (b"step,loss\r\n0,0.5\r\n,\r\n", ["0", "5"]),
        (b"step,loss\r\n0,0.5\r\n0.25\r\n", ["0", "5"]),
        (b"step,loss\r\n0,0.5\r\n1,0.21,0.2\r\n\0\0\xff\r\n", ["0", "5"]),
        (b"step,lo", ["5"]),
        (b"ste\r\n0\r\n", ["5"]),
        (b"", ["5"]),
    ],
)
def test_a_run_goes_on_with_the_whole_rows_of_a_table_that_was_left_half_written(
    tmp_path: Path, left: bytes, steps: list[str]
) -> None:
    (tmp_path / "metrics.csv").write_bytes(left)
    logger = CsvLogger(str(tmp_path), flush_every=1)
    logger.keep_rows_before(5)
    logger.log_metrics({"loss": 0.1}, step=5)
    assert [row["step"] for row in table(tmp_path)] == steps
    assert table(tmp_path)[-1]["loss"] == "0.1"


def test_a_login_is_a_key_in_the_environment_or_in_the_netrc_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not has_wandb_login()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password word\n")
    (tmp_path / "netrc").chmod(0o600)
    assert has_wandb_login()
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "word")
    assert has_wandb_login()


def test_a_login_counts_for_the_server_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine localhost:8080 login user password word\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert not has_wandb_login()
    monkeypatch.setenv("WANDB_BASE_URL", "http://localhost:8080")
    assert has_wandb_login()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org/")
    assert not has_wandb_login()


def test_without_tensorboard_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from lightning.fabric.loggers import tensorboard

    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):  # what Lightning found when it was imported
        monkeypatch.setattr(tensorboard, name, False)
    with pytest.raises(ValueError, match=r"pip install 'r3cnn\[tensorboard\]'"):
        TensorBoardLogger(str(tmp_path))
