"""Arrays that took long to make, kept in a folder and mapped from there.

An entry is named by what it was made from, so it never goes stale, and it appears complete or not at all. All
processes of a machine that map it share its memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

SMALLEST_MAPPED = 4096
"""Bytes; shorter files are read."""

FACTS = "facts.json"
DAYS_KEPT = 30
"""Days without use after which an entry is dropped when a new one is made: most are of code that has changed since."""

NAME = re.compile("[0-9a-f]{40}")
"""Names that `name_of` gives; nothing else in the folder is ever dropped."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
    """What an entry holds.

    Attributes:
        arrays: By name; nothing that needs pickle.
        facts: What else belongs to it, as JSON knows it.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, object]


def digest_of(file: Path) -> str:
    """Digest of a file's content, wherever it lies and whatever it is called: 0.5 s for COCO's annotations.

    Size and time of the last change would be quicker but can be those of another content, and training on the wrong
    annotations is noticed by nobody.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def name_of(*parts: str) -> str:
    """Name of the entry that is made from ``parts`` alone."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=20).hexdigest()


def load_or_make(folder: Path, name: str, make: Callable[[], Stored]) -> Stored:
    """The entry ``name`` of ``folder``, made by the first process that needs it while others wait.

    The wait is for a lock of the file system, not for other ranks, so unrelated jobs share an entry as well, and the
    lock of a process that dies is free at once. Where nothing can be written, every process makes its own.
    """
    place = folder / name
    found = _load(place)
    if found is not None:
        return found
    with _lock(folder, name):
        found = _load(place)
        if found is not None:
            return found
        made = make()
        try:
            _save(place, made)
        except OSError as error:
            log.warning("%s: the index is made anew by every process, it cannot be kept: %s", folder, error)
            return made
    drop_unused(folder)
    return _load(place) or made


def drop_unused(folder: Path) -> None:
    """Removes the entries of ``folder`` that nobody used for `DAYS_KEPT` days; processes that map one keep theirs."""
    oldest = time.time() - DAYS_KEPT * 24 * 3600
    for place in folder.iterdir():
        try:
            if NAME.fullmatch(place.name) and (place / FACTS).stat().st_mtime < oldest:
                shutil.rmtree(place)
                log.info("%s: dropped, unused for %d days", place, DAYS_KEPT)
        except OSError as error:  # another process drops it as well, or it is another user's
            log.debug("%s: not dropped: %s", place, error)


def _lock(folder: Path, name: str) -> AbstractContextManager[object]:
    lock = FileLock(folder / f"{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (
        OSError,
        NotImplementedError,
    ) as error:  # read-only, or a file system without locks: then some work is done twice
        log.debug("%s cannot be locked: %s", folder, error)
        return nullcontext()
    return _Held(lock)


class _Held(AbstractContextManager["_Held"]):
    """A lock that is held already and released at the end."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _save(place: Path, stored: Stored) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        for name, array in stored.arrays.items():
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
        lengths = {name: len(array) for name, array in stored.arrays.items()}
        (draft / FACTS).write_text(json.dumps({"lengths": lengths, "facts": stored.facts}))
        draft.chmod(0o755)
        if place.exists():  # a broken one
            shutil.rmtree(place)
        os.rename(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _load(place: Path) -> Stored | None:
    """The entry; None if there is none that is whole."""
    if not place.is_dir():
        return None
    try:
        content = json.loads((place / FACTS).read_text())
        arrays = {name: _load_array(place / f"{name}.npy", length) for name, length in content["lengths"].items()}
        with suppress(OSError):  # a folder that can only be read
            os.utime(place / FACTS)  # tells when it was last used
        return Stored(arrays, content["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s: is broken and made anew: %s", place, error)
        return None


def _load_array(file: Path, length: int) -> np.ndarray:
    is_mapped = file.stat().st_size >= SMALLEST_MAPPED
    array: np.ndarray = np.load(file, mmap_mode="r" if is_mapped else None, allow_pickle=False)
    if len(array) != length:
        raise ValueError(f"{file.name} has {len(array)} entries, not {length}")
    return array.view(np.ndarray)
