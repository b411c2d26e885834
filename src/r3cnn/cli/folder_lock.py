"""One run at a time in a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from r3cnn.cli.outcome import IMAGE_IDS, NUMBERS
from r3cnn.cli.ranks import is_one_of_several, rank_in
from r3cnn.reporting.records import RESULT

log = logging.getLogger(__name__)
LOCK_FILE = ".lock"
REMINDER_SECONDS = 600.0  # between two words about a wait


@contextmanager
def sole_writer(output_dir: Path, *, waits: bool) -> Iterator[None]:
    """Keeps other runs out of a folder while this one writes into it; the first rank does so for all of them.

    The operating system frees the folder when the process ends, however it ends.

    What a killed run left half written is removed.

    Args:
        output_dir: Folder of the run.
        waits: Whether to wait for another run that is in the folder. One of several ranks never waits: the others have
            begun, and would go on from what the folder holds now.

    Raises:
        ValueError: When another run is in the folder and this one does not wait.
    """
    if rank_in(os.environ) > 0:
        yield
        return
    output_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output_dir / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not waits or is_one_of_several(os.environ):
            raise ValueError(
                f"output_dir={output_dir}: another run is writing into it; name another folder or wait for its end"
            ) from None
        _wait_for(lock, output_dir)
    _remove_drafts(output_dir)
    try:
        yield
    finally:
        lock.release()


def _remove_drafts(output_dir: Path) -> None:
    """Removes what a run that was killed had begun to write: ``.NAME.PID``, which becomes NAME when it is whole."""
    for draft in (*(f".{name}.*" for name in (RESULT, NUMBERS, IMAGE_IDS)), "checkpoints/.*.ckpt.*"):
        for path in output_dir.glob(draft):
            if path.suffix[1:].isdigit() and path.is_file():
                path.unlink()


def _wait_for(lock: FileLock, output_dir: Path) -> None:
    while not lock.is_locked:
        log.warning("another run is writing into %s: this one waits until it has ended", output_dir)
        with suppress(Timeout):
            lock.acquire(timeout=REMINDER_SECONDS)
