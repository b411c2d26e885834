"""What is opened and what is refused under the name of a file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from r3cnn.disk import open_regular


def test_a_file_is_opened_through_a_link_and_waits_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with open_regular(tmp_path / "link", max_bytes=4) as file:
        assert file.read() == b"text"


def test_what_is_no_file_or_too_large_is_refused_by_name_at_once(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name, kind in {
            "large": "5 bytes",
            "folder": "a folder",
            "pipe": "a named pipe",
            "zero": "a device",
            "socket": "a socket",
        }.items():
            with pytest.raises(ValueError, match=rf"{name} (is|has) {kind}"):
                open_regular(tmp_path / name, max_bytes=4)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")
