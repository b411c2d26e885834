"""Files that are whole or not there, and files that are files and no device or pipe under the name of one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a draft beside ``path``, ``.NAME.PID``, to write into; it takes the place of ``path`` in one step.

    Where writing fails, what ``path`` held before is still whole. Folders that are missing are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def open_regular(path: Path, max_bytes: int | None = None) -> BufferedReader:
    """Opens a regular file to read, through links as well; never waits, as on a named pipe.

    Args:
        path: The file.
        max_bytes: The most that it may hold.

    Raises:
        FileNotFoundError: If there is none, and other kinds of OSError if it cannot be opened.
        ValueError: If something else bears its name, or it is larger.
    """
    _check_kind(path, os.stat(path), max_bytes)  # opening some devices acts on them
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    try:
        _check_kind(path, os.fstat(file.fileno()), max_bytes)
    except ValueError:
        file.close()
        raise
    return file


def _check_kind(path: Path, found: os.stat_result, max_bytes: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is a {KINDS.get(stat.S_IFMT(found.st_mode), 'special file')}: a file is needed")
    if max_bytes is not None and found.st_size > max_bytes:
        raise ValueError(f"{path} has {found.st_size:,} bytes: at most {max_bytes:,} are read")
