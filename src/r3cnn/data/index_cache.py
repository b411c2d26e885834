"""Arrays that took long to make, kept in a folder and mapped from there.

An entry is named by what it was made from, so it never goes stale, and it appears complete or not at all. It holds its
name and checksums of all of it, so that what was damaged or exchanged since is made anew. All processes of a machine
that map it share its memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from r3cnn.disk import open_regular

SMALLEST_MAPPED = 4096
"""Bytes; shorter files are read."""

FACTS = "facts.json"
DAYS_KEPT, DAYS_OF_DRAFTS = 30, 1
"""Days without use after which an entry is dropped when a new one is made: most are of code that has changed since.

What a killed process left unfinished is dropped earlier."""

NAME = re.compile(r"(\.)?[0-9a-f]{40}(?(1)-.*)")
"""Names that `name_of` gives, and drafts of such; nothing else in the folder is ever dropped."""

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
    with open_regular(file) as stream:
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
    with _lock(folder, name) as lock:
        found = _load(place, log.warning)
        if found is not None:
            return found
        if lock is not None:  # then nobody writes it at this moment
            for draft in folder.glob(f".{name}-*"):
                shutil.rmtree(draft, ignore_errors=True)
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
    for place in folder.iterdir():
        try:
            found = NAME.fullmatch(place.name)
            days, file = (DAYS_OF_DRAFTS, place) if found and found[1] else (DAYS_KEPT, place / FACTS)
            if found and file.stat().st_mtime < time.time() - days * 24 * 3600:
                shutil.rmtree(place)
                log.info("%s: dropped, unused for %d days", place, days)
        except OSError as error:  # another process drops it as well, or it is another user's
            log.debug("%s: not dropped: %s", place, error)


def _lock(folder: Path, name: str) -> AbstractContextManager[object]:
    """The lock, held, to release at the end; of None where there is none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock").acquire()
    except (OSError, NotImplementedError) as error:
        # Read-only, or a file system without locks: then some work is done twice.
        log.debug("%s cannot be locked: %s", folder, error)
        return nullcontext()


def _save(place: Path, stored: Stored) -> None:
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        checksums = {}
        for name, array in stored.arrays.items():
            file = draft / f"{name}.npy"
            np.save(file, array, allow_pickle=False)
            checksums[name] = _checksum(file)
        content = json.dumps({"name": place.name, "checksums": checksums, "facts": stored.facts}).encode()
        (draft / FACTS).write_bytes(content + b"\n%d" % zlib.crc32(content))
        draft.chmod(0o755)
        if place.exists():  # a broken one
            shutil.rmtree(place)
        os.rename(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _load(place: Path, tell: Callable[..., None] = log.debug) -> Stored | None:
    """The entry; None if there is none that is whole."""
    if not place.is_dir():
        return None
    try:
        with open_regular(place / FACTS) as stream:
            text, _, checksum = stream.read().rpartition(b"\n")
        if int(checksum) != zlib.crc32(text):
            raise ValueError(f"{FACTS} is damaged")
        content = json.loads(text)
        if content["name"] != place.name:
            raise ValueError(f"it is {content['name']} under another name")
        arrays = {name: _load_array(place / f"{name}.npy", found) for name, found in content["checksums"].items()}
        with suppress(OSError):  # a folder that can only be read
            os.utime(place / FACTS)  # tells when it was last used
        return Stored(arrays, content["facts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        tell("%s: is broken and made anew: %s", place, error)
        return None


def _load_array(file: Path, checksum: int) -> np.ndarray:
    if _checksum(file) != checksum:
        raise ValueError(f"{file.name} is damaged")
    is_mapped = file.stat().st_size >= SMALLEST_MAPPED
    array: np.ndarray = np.load(file, mmap_mode="r" if is_mapped else None, allow_pickle=False)
    return array.view(np.ndarray)


def _checksum(file: Path) -> int:
    """CRC-32 of a file: 0.1 s for all of COCO's index, a fifth of what the digest of its annotations takes."""
    with open_regular(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return zlib.crc32(content)
