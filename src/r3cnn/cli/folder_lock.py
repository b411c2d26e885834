"""One run at a time in a folder."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from r3cnn.cli.ranks import is_one_of_several, job_in, rank_in
from r3cnn.run_files import (
    BOOTSTRAPS,
    CHECKPOINTS,
    CONFIG,
    DETECTIONS,
    ERRORS,
    IMAGE_IDS,
    LOOP_DETECTIONS,
    METRICS,
    NUMBERS,
    PICTURES,
    RESULT,
    ROIS,
    TRAINING_CONFIG,
    TRAINING_ROIS,
)

log = logging.getLogger(__name__)
LOCK_FILE, OWNER_FILE = ".r3cnn.lock", ".r3cnn.owner"
LOOK_SECONDS = 1.0
OCCUPIED_SECONDS, PATIENCE_SECONDS = 5.0, 60.0  # until a further rank believes that another run has the folder; waits
WRITTEN = (
    *(CONFIG, TRAINING_CONFIG, RESULT, METRICS, NUMBERS, DETECTIONS, LOOP_DETECTIONS.format("*"), IMAGE_IDS, ROIS),
    *(TRAINING_ROIS, BOOTSTRAPS, f"{CHECKPOINTS}/*.ckpt", f"{PICTURES}/*.png", f"{ERRORS}/*.png", f"{ERRORS}/*.json"),
)
REMINDER_SECONDS = 600.0  # between two words about a wait
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # Lustre without -o flock, NFS without its daemon, some FUSE


@contextmanager
def sole_writer(output_dir: Path, *, waits: bool = False) -> Iterator[None]:
    """Keeps others out of a folder while this command writes into it; the first rank does so for all of them.

    The operating system frees the folder when the process ends, however it ends.

    What a killed run left half written is removed.

    Args:
        output_dir: Folder of the run.
        waits: Whether to wait for another run that is in the folder. One of several ranks never waits: the others have
            begun, and would go on from what the folder holds now.

    Raises:
        ValueError: When another run is in the folder and this one does not wait, on every rank; or for a file.
    """
    job = job_in(os.environ)
    if rank_in(os.environ) > 0:
        if job is not None:
            _follow(output_dir, job)
        yield
        return
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"output_dir={output_dir}: no folder can be made there: {error.strerror}") from error
    lock, owner = _lock_of(output_dir), output_dir / OWNER_FILE
    try:
        _acquire(lock, timeout=0 if job is None else LOOK_SECONDS)  # further ranks look whether it is free
    except Timeout:
        if not waits or is_one_of_several(os.environ):
            raise _occupied(output_dir) from None
        _wait_for(lock, output_dir)
    _remove_drafts(output_dir)
    if job is not None:
        owner.write_text(job, encoding="utf-8")
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def writing_file(path: Path) -> AbstractContextManager[None]:
    """Likewise for a command that writes one file, which may lie in a run's folder or below it."""
    folder = _run_above(path)
    return nullcontext() if folder is None else sole_writer(folder)


def writing_below(output_dir: Path) -> AbstractContextManager[None]:
    """Likewise for a command whose folder may be that of a run, or lie in it."""
    return sole_writer(_run_above(output_dir / LOCK_FILE) or output_dir)


def _run_above(path: Path) -> Path | None:
    """The innermost folder around a file that a command has written into as its own; checkpoints are their run's."""
    folders = (folder for folder in path.absolute().parents if folder.name != CHECKPOINTS)
    return next((folder for folder in folders if (folder / LOCK_FILE).exists()), None)


def _occupied(output_dir: Path) -> ValueError:
    return ValueError(
        f"output_dir={output_dir}: another run is writing into it; name another folder or wait for its end"
    )


def _follow(output_dir: Path, job: str) -> None:
    """Lets a further rank go on once the first one has the folder, or refuses it as that one is refused."""
    begin = occupied_since = time.monotonic()
    lock, owner = _lock_of(output_dir), output_dir / OWNER_FILE
    while (now := time.monotonic()) < begin + PATIENCE_SECONDS:
        with suppress(OSError):
            if owner.read_text(encoding="utf-8") == job:
                return
        if output_dir.is_dir():
            with suppress(Timeout):
                _acquire(lock, timeout=0)
                lock.release()
                occupied_since = now
        if now - occupied_since > OCCUPIED_SECONDS:
            raise _occupied(output_dir)
        time.sleep(0.1)


def _remove_drafts(output_dir: Path) -> None:
    """Removes what a run that was killed had begun to write: ``.NAME.PID``, which becomes NAME when it is whole."""
    for name in WRITTEN:
        folder, _, file = name.rpartition("/")
        for path in (output_dir / folder).glob(f".{file}.*"):
            if path.suffix[1:].isdigit() and path.is_file() and not path.is_symlink():
                path.unlink()


def _wait_for(lock: BaseFileLock, output_dir: Path) -> None:
    while True:
        log.warning("another run is writing into %s: this one waits until it has ended", output_dir)
        with suppress(Timeout):
            return _acquire(lock, timeout=REMINDER_SECONDS)


def _lock_of(output_dir: Path) -> BaseFileLock:
    """The lock of a folder.

    A file that merely exists does not stand in for it: that would outlive a killed run and keep out its successor.
    """
    return FileLock(output_dir / LOCK_FILE, fallback_to_soft=False)


def _acquire(lock: BaseFileLock, timeout: float) -> None:
    """Takes the lock; on a file system that knows none, goes on without it and says so."""
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("%s: this file system has no locks: nothing keeps a second run out of it", lock.lock_file)
