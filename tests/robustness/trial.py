"""One trial of the program on something mutated: in a fork of this warm process, with limits of time and memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import torch

MOST_SECONDS, MOST_CPU_SECONDS = 400, 120  # of a trial, on a machine that is shared
SPARE_BYTES = 6 * 2**30  # of address space, beyond what the process has already
HANGS = (-signal.SIGKILL, -signal.SIGXCPU)
USER_ERROR = 2


class Verdict(Enum):
    """What has to become of a mutation, known from how it was made."""

    VALID = "valid"
    INVALID = "invalid"
    HARMLESS = "harmless"  # may be taken or refused, as long as nothing crashes


@dataclass(frozen=True)
class Case:
    """A mutation.

    Attributes:
        name: What was mutated, and into what.
        kind: What the table of results counts it under.
        verdict: What has to become of it.
        words: The command line.
        named: What a refusal has to name.
    """

    name: str
    kind: str
    verdict: Verdict
    words: tuple[str, ...] = ()
    named: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a mutation.

    Attributes:
        status: Exit status; negative for the signal that ended the process.
        text: What it wrote to stderr.
        is_touched: Whether any file in the watched folder was made, changed or removed.
    """

    status: int
    text: str
    is_touched: bool

    def fault(self, case: Case) -> str | None:
        """What is wrong with it; None if that is what the verdict asks for."""
        lines = [line for line in self.text.splitlines() if line.startswith("r3cnn: ")]
        if self.status in HANGS:
            return "hangs"
        if self.status == 0:
            return "silently taken" if case.verdict is Verdict.INVALID else None
        if self.status != USER_ERROR or "Traceback (most recent call last)" in self.text or len(lines) != 1:
            return "raw crash"
        if self.is_touched:
            return "fails late"
        if case.verdict is Verdict.VALID:
            return "refused though valid"
        return None if case.named in lines[0] else f"does not name {case.named}"


def attempt(words: Sequence[str], folder: Path) -> Outcome:
    """Runs the console script with these words, while the files in a folder are watched."""
    before = _listing(folder)
    with tempfile.TemporaryFile("w+") as log:
        child = os.fork()
        if child == 0:
            _run_and_exit(words, log.fileno())
        status = _waited(child)
        log.seek(0)
        text = log.read()
    return Outcome(status, text, _listing(folder) != before)


def _run_and_exit(words: Sequence[str], log: int) -> None:
    status = 1
    try:
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + SPARE_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECONDS, resource.RLIM_INFINITY))
        sys.argv = ["r3cnn", *words]
        torch.set_num_threads(1)  # the pool of threads that this process had before the fork is gone, and waits forever
        try:
            from r3cnn.cli.main import main

            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1 if end.code else 0
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
    finally:
        os._exit(status)


def _waited(child: int) -> int:
    end = time.monotonic() + MOST_SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _listing(folder: Path) -> set[tuple[str, int, int]]:
    """Files but locks and logs, in which a start may say what it did before it was refused."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".log", ".lock")]
    return {(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def table(results: Iterable[tuple[Case, str | None]]) -> str:
    """How many cases of each kind were tried and how many failed, as Markdown."""
    rows: dict[str, list[str | None]] = {}
    for case, fault in results:
        rows.setdefault(case.kind, []).append(fault)
    lines = [f"| {kind} | {len(faults)} | {sum(map(bool, faults))} |" for kind, faults in sorted(rows.items())]
    return "\n".join(["| kind | tried | fail |", "|---|---|---|", *lines])
