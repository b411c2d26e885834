"""Real processes that are asked to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, sys, time
from r3cnn.end_signals import SIGNALS
with SIGNALS.handled(may_continue=True):
    SIGNALS.is_deferred = "deferred" in sys.argv
    print("ready", flush=True)
    end = time.monotonic() + 60
    while SIGNALS.told is None and time.monotonic() < end:
        time.sleep(0.01)
    print("told", SIGNALS.told.name, flush=True)
    if "stuck" in sys.argv:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # no statement of Python's ends, as in a long step
    time.sleep(1)
    SIGNALS.release()
"""
SWALLOWED = """
import os, signal, time
from r3cnn.end_signals import SIGNALS
class Part:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
with SIGNALS.handled(may_continue=True):
    part = Part()
    del part
    time.sleep({seconds})
    print("goes on")
"""
FORKED = """
import multiprocessing, subprocess, time
from r3cnn.end_signals import leave_signals_to_parent
def load(is_ready):
    leave_signals_to_parent(0)
    is_ready.set()
    time.sleep(60)
forked = multiprocessing.get_context("fork")
for _ in range(3):
    is_ready = forked.Event()
    worker = forked.Process(target=load, args=(is_ready,), daemon=True)
    worker.start()
    assert is_ready.wait(30)
    for name in ("TERM", "TERM", "INT", "HUP", "USR1"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    worker.join(0.3)
    print("alive", worker.is_alive(), end=", ")
    worker.terminate()
    worker.join(30)
    print("then", worker.exitcode)
"""
POOL = """
import os, time
from r3cnn.data import inspection
from r3cnn.end_signals import SIGNALS
def slow(file):
    os.write(1, b"x")
    time.sleep(60)
with SIGNALS.handled(may_continue=False):
    list(inspection._look_at_all([inspection._ImageFile("a", "a", None)] * 2000, 2, slow))
"""
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


def start(*words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", PROGRAM, *words]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", CODES)
def test_the_first_signal_ends_the_process_with_a_line_and_its_status(number: signal.Signals) -> None:
    process = start()
    process.send_signal(number)
    assert process.communicate(timeout=60) == ("", f"r3cnn: ended by {number.name}\n")
    assert process.returncode == CODES[number]


@pytest.mark.parametrize("number", CODES)
def test_a_deferred_signal_ends_the_process_when_it_is_released_though_it_comes_twice_as_from_timeout(
    number: signal.Signals,
) -> None:
    process = start("deferred")
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert output == f"told {number.name}\n"
    assert errors.splitlines()[-1] == f"r3cnn: ended by {number.name}"
    assert process.returncode == CODES[number]


def test_a_second_signal_ends_the_process_at_once_even_where_python_has_no_say() -> None:
    process = start("deferred", "stuck")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "told SIGTERM\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == -signal.SIGINT


@pytest.mark.parametrize(("seconds", "said"), [(20, ""), (0, "goes on\n")])
def test_a_signal_in_a_place_that_no_exception_leaves_ends_the_process_all_the_same(seconds: int, said: str) -> None:
    words = [sys.executable, "-c", SWALLOWED.format(seconds=seconds)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=15, check=False)
    assert (ended.returncode, ended.stdout) == (143, said)
    assert {*ended.stderr.splitlines()} == {"r3cnn: ended by SIGTERM"}


def test_a_signal_that_was_ignored_at_the_start_stays_ignored() -> None:
    process = start(before=("nohup",))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_the_signal_that_asks_to_be_continued_is_noted_alone() -> None:
    process = start()
    process.send_signal(signal.SIGUSR1)
    output, errors = process.communicate(timeout=60)
    assert (output, errors, process.returncode) == ("told SIGUSR1\n", "", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0, 0.5])
def test_a_signal_to_all_processes_ends_a_check_of_images_at_once_with_a_single_line(
    number: signal.Signals, delay: float
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", POOL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.read(2) == "xx"  # both workers are at an image
    try:
        if delay:  # the workers end while their parent takes back what they have not begun
            os.kill(process.pid, number)
            time.sleep(delay)
            for worker in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(worker), number)
        else:
            os.killpg(process.pid, number)
        assert process.communicate(timeout=30) == ("", f"r3cnn: ended by {number.name}\n")
        assert process.returncode == CODES[number]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_process_that_loads_data_is_ended_by_its_parent_at_the_first_word_and_by_nobody_else() -> None:
    words = [sys.executable, "-c", FORKED]  # forked as by a run: not with what all other tests left in this process
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "alive True, then 0\n" * 3
