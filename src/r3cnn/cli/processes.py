"""Processes of a sweep: each job is a process group of its own, which ends when it, or the sweep, ends."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from uuid import uuid4

log = logging.getLogger(__name__)
LOG_FILE = "job.log"
POLL_SECONDS = 0.1
END_SECONDS = 30.0  # that a killed process may take to be gone, say with much memory
MARK = "R3CNN_JOB"  # set for all processes of a call, whatever their sessions: torchrun gives its ranks one each
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, eq=False)
class Process:
    """The running processes of a call.

    Attributes:
        leader: The first of them, which leads a process group.
        mark: What all of them carry in their environment.
    """

    leader: subprocess.Popen[bytes]
    mark: str


@dataclass(frozen=True, eq=False)  # two calls are never the same
class Call:
    """What one job runs.

    Attributes:
        title: What it is, for the log.
        command: The program and its arguments.
        environment: All its environment variables.
        folder: Where ``job.log`` takes what the processes print.
    """

    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path

    @property
    def log_file(self) -> Path:
        """What its processes printed, of all its starts."""
        return self.folder / LOG_FILE


class EndingSignals:
    """Notes the signals that ask this process to end."""

    def __init__(self) -> None:
        self.received: list[int] = []

    def note(self, number: int, _: FrameType | None) -> None:
        """Handler of a signal."""
        self.received.append(number)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Handles the signals inside the context; one that was ignored before, as under nohup, still is."""
        before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
        handled = [number for number, handler in before.items() if handler != signal.SIG_IGN]
        for number in handled:
            signal.signal(number, self.note)
        try:
            yield
        finally:
            for number in handled:
                signal.signal(number, before[number])


def run_calls(
    calls: Sequence[Call],
    *,
    places: Sequence[Mapping[str, str]],
    grace_seconds: float,
    on_end: Callable[[Call, int], None],
) -> None:
    """Runs calls in their order, as many at a time as there are places.

    Args:
        calls: The calls.
        places: Further environment variables of the call that is in each place.
        grace_seconds: Time between asking processes to end and ending them.
        on_end: Is told of each call that ended by itself, with its exit status.

    Raises:
        SystemExit: When this process is asked to end; by then all processes have ended, or have been killed and take
            longer than `END_SECONDS` over it.
    """
    waiting, running = list(enumerate(calls, start=1)), dict[int, tuple[Call, Process]]()
    signals = EndingSignals()
    with signals.noted():
        try:
            while (waiting or running) and not signals.received:
                for place in [place for place in range(len(places)) if place not in running][: len(waiting)]:
                    number, call = waiting.pop(0)
                    log.info("job %d of %d: %s; prints into %s", number, len(calls), call.title, call.log_file)
                    running[place] = call, _start(call, places[place])
                for place in [place for place, (_, process) in running.items() if process.leader.poll() is not None]:
                    call, process = running.pop(place)
                    _end_groups([process], 0, signals)  # what it left behind
                    on_end(call, process.leader.returncode)
                time.sleep(POLL_SECONDS)
        finally:
            _end_groups([process for _, process in running.values()], grace_seconds, signals)
    if signals.received:
        log.error("ended by %s; the same command continues from here", signal.Signals(signals.received[0]).name)
        raise SystemExit(128 + signals.received[0])


def _start(call: Call, place: Mapping[str, str]) -> Process:
    call.folder.mkdir(parents=True, exist_ok=True)
    mark = f"{MARK}={uuid4().hex}"
    with call.log_file.open("ab") as output:
        leader = subprocess.Popen(
            call.command,
            env={**call.environment, **place, MARK: mark.partition("=")[2]},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Process(leader, mark)


def _end_groups(processes: Sequence[Process], grace_seconds: float, signals: EndingSignals) -> None:
    """Asks process groups to end, and ends them after a while, or when asked a second time."""
    for process in processes:
        _signal_group(process, signal.SIGTERM)
    asked, deadline = len(signals.received), time.monotonic() + grace_seconds
    if asked and processes:
        log.info("waiting until the jobs have saved; a second signal ends them at once")
    while any(process.leader.poll() is None for process in processes):
        if time.monotonic() > deadline or len(signals.received) > asked:
            break
        time.sleep(POLL_SECONDS)
    deadline = time.monotonic() + END_SECONDS
    while left := [process for process in processes if _is_left_after_kill(process)]:
        if time.monotonic() > deadline:
            log.error("killed, but still there: processes of %s", [process.leader.args for process in left])
            break
        time.sleep(POLL_SECONDS / 10)


def _is_left_after_kill(process: Process) -> bool:
    """Kills what is left of a call; whether there was anything."""
    _signal_group(process, signal.SIGKILL)
    others = marked_processes(process.mark)
    for pid in others:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return process.leader.poll() is None or bool(others)


def _signal_group(process: Process, number: int) -> None:
    with suppress(ProcessLookupError):  # nobody is left in it
        os.killpg(process.leader.pid, number)


def marked_processes(mark: str) -> set[int]:
    """Processes that carry a variable in the environment that they were started with, where the system tells.

    Args:
        mark: The variable with its value, ``NAME=value``.
    """
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is somebody else's
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.add(int(path.parent.name))
    return found
