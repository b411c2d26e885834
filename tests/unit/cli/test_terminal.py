"""What is only shown: encodings, readers that go away, and errors on the way."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r3cnn.cli.terminal import LogFile, LogFormatter, left_out_on_error, patient_output
from r3cnn.reporting.console import terminal


def test_commands_go_on_when_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with patient_output():
            for _ in range(3):
                print("text")
                terminal().print("a table")
                sys.stdout.flush()
        assert sys.stdout is stream


def test_another_error_of_the_output_comes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as stream:  # cannot be written to
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(io.UnsupportedOperation), patient_output():
            print("text")


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "- >= \\xfc \\u732b"), ("latin-1", "- >= ü \\u732b"), ("utf-8", "– ≥ ü 猫")]
)
def test_what_an_encoding_lacks_is_written_in_another_way(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with patient_output():
        print("– ≥ ü 猫")
        print("\ud83d")
    stream.seek(0)
    assert stream.read().splitlines() == [shown, "\\ud83d"]
    assert stream.errors == "strict"


def test_no_file_takes_the_number_of_a_standard_stream_that_the_shell_has_closed(tmp_path: Path) -> None:
    code = """
import os, sys
from r3cnn.cli.terminal import patient_output
with patient_output(), open(sys.argv[1], "w") as file:
    file.write(f"{file.fileno() > 2}")
    os.write(2, b"a line on stderr")
    print("text")
"""
    path = tmp_path / "file"
    closed = ["sh", "-c", 'exec "$0" -c "$1" "$2" <&- >&- 2>&-', sys.executable, code, str(path)]
    assert subprocess.run(closed, check=False).returncode == 0
    assert path.read_text() == "True"


def test_the_log_shows_control_characters_of_names() -> None:
    record = logging.makeLogRecord({"msg": "%s\nnext", "args": ("\x1b[2Jname",)})
    assert LogFormatter("%(message)s").format(record) == "\\x1b[2Jname\nnext"


def test_what_fails_in_showing_is_left_out_with_a_line_that_names_it(caplog: pytest.LogCaptureFixture) -> None:
    with left_out_on_error("picture.png"):
        raise RuntimeError("no font")
    assert caplog.messages == ["left out picture.png: RuntimeError: no font"]
    with pytest.raises(KeyboardInterrupt), left_out_on_error("picture.png"):
        raise KeyboardInterrupt


def test_the_program_goes_on_without_a_log_file_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = LogFile(tmp_path / "removed" / "train.log", delay=True)
    handler.handle(logging.makeLogRecord({"msg": "a line"}))
    (tmp_path / "removed").mkdir()
    handler.handle(logging.makeLogRecord({"msg": "another line"}))
    handler.close()
    assert (tmp_path / "removed" / "train.log").read_text() == "another line\n"
