"""Process groups of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from r3cnn.cli.processes import MARK, Call, marked_processes, run_calls

TIMEOUT = 120  # seconds; a machine may be busy
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {}; time.sleep(600)"
PARENT = (
    "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
)


def call(folder: Path, code: str, **variables: str) -> Call:
    return Call("a job", (sys.executable, "-c", code), {**os.environ, **variables}, folder)


def run(calls: list[Call], parallel: int = 1, grace_seconds: float = 0.2) -> dict[str, int]:
    ended: dict[str, int] = {}

    def note(done: Call, status: int) -> None:
        ended[done.folder.name] = status

    run_calls(calls, places=[{}] * parallel, grace_seconds=grace_seconds, on_end=note)
    return ended


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for(path: Path) -> str:
    wait_until(lambda: path.is_file() and path.read_text().endswith("\n"))
    return path.read_text()


def test_a_failed_call_does_not_stop_the_next_one(tmp_path: Path) -> None:
    calls = [call(tmp_path / "a", "raise SystemExit(3)"), call(tmp_path / "b", "print('done')")]
    assert run(calls) == {"a": 3, "b": 0}
    assert (tmp_path / "b" / "job.log").read_text() == "done\n"


def test_the_log_of_a_call_keeps_what_earlier_starts_printed(tmp_path: Path) -> None:
    for word in ("first", "second"):
        run([call(tmp_path, f"import sys; print('{word}', file=sys.stderr)")])
    assert (tmp_path / "job.log").read_text() == "first\nsecond\n"


def test_calls_run_in_parallel_when_asked_to(tmp_path: Path) -> None:
    """Each waits for a file of the other: one after another they would fail."""
    code = (
        "import pathlib, time\nend = time.monotonic() + 30\npathlib.Path('{}').touch()\n"
        "while not pathlib.Path('{}').exists():\n    assert time.monotonic() < end\n    time.sleep(.02)"
    )
    first, second = tmp_path / "1", tmp_path / "2"
    calls = [call(tmp_path / "a", code.format(first, second)), call(tmp_path / "b", code.format(second, first))]
    assert run(calls, parallel=2) == {"a": 0, "b": 0}


def test_what_a_call_leaves_running_in_its_group_is_ended(tmp_path: Path) -> None:
    assert run([call(tmp_path / "a", f"{PARENT}; print(child.pid)")]) == {"a": 0}
    child = int((tmp_path / "a" / "job.log").read_text())
    wait_until(lambda: not is_running(child))


def test_what_a_call_leaves_running_in_a_session_of_its_own_is_ended_and_nothing_else(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={**os.environ, MARK: "x"}
    ) as other:
        code = PARENT.replace("time.sleep(600)'])", "time.sleep(600)'], start_new_session=True)")
        assert run([call(tmp_path / "a", f"{code}; print(child.pid)")]) == {"a": 0}
        child = int((tmp_path / "a" / "job.log").read_text())
        wait_until(lambda: not is_running(child))
        assert marked_processes(f"{MARK}=x") == {other.pid}
        other.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_calls_with_their_children_even_those_that_ignore_being_asked(
    tmp_path: Path, number: signal.Signals
) -> None:
    code = STUBBORN.format(f"{PARENT}; print(child.pid, flush=True)")
    calls = [call(tmp_path / name, code) for name in "abc"]
    logs = [tmp_path / name / "job.log" for name in "ab"]
    children: list[int] = []

    def signal_us() -> None:
        children.extend(int(wait_for(path)) for path in logs)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=signal_us, daemon=True)
    handler = signal.getsignal(number)
    thread.start()
    with pytest.raises(SystemExit) as ended:
        run(calls, parallel=2)
    thread.join(TIMEOUT)
    assert ended.value.code == 128 + number
    wait_until(lambda: not any(is_running(child) for child in children))
    assert len(children) == 2
    assert not (tmp_path / "c").exists()  # it was waiting
    assert signal.getsignal(number) == handler


def test_a_hang_up_is_ignored_under_nohup(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from r3cnn.cli.processes import Call, run_calls\n"
        "code = 'import os, signal; os.kill(os.getppid(), signal.SIGHUP); print(1)'\n"
        "call = Call('a job', (sys.executable, '-c', code), dict(os.environ), pathlib.Path(sys.argv[1]))\n"
        "run_calls([call], places=[{}], grace_seconds=1, on_end=lambda call, status: print('ended', status))\n"
    )
    command = ["nohup", sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.stdout == "ended 0\n"
    assert done.returncode == 0
