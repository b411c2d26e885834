from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hostile_checkpoints import HOSTILE

MAX_SECONDS, MAX_BYTES = 10, 10**9
# Says of every file in a folder what reading it costs, within an address space that would not hold much more.
READER = """
import json, pathlib, resource, signal, sys, time
from r3cnn.training.checkpoint import load_checkpoint
def status(key):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])
limit = status("VmSize") + 6 * 10**9
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    open("/proc/self/clear_refs", "w").write("5")
    before, start = status("VmRSS"), time.monotonic()
    signal.alarm(100)
    try:
        load_checkpoint(path)
        kind, message = "read", ""
    except BaseException as error:
        kind, message = type(error).__name__, str(error)
    print(json.dumps([path.name, kind, message, time.monotonic() - start, status("VmHWM") - before]), flush=True)
"""


def test_hostile_and_damaged_checkpoints_are_refused_by_name_and_cost_nothing(tmp_path: Path) -> None:
    files, empty = tmp_path / "files", tmp_path / "empty"
    files.mkdir()
    empty.mkdir()
    names = {f"{number:03d}.ckpt": name for number, name in enumerate(HOSTILE)}
    for file, name in names.items():
        HOSTILE[name](files / file)
    command = [sys.executable, "-c", READER, str(files)]
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True, timeout=600, check=False)
    found = {names[row[0]]: row for row in map(json.loads, done.stdout.splitlines())}
    assert found.keys() == HOSTILE.keys(), done.stderr
    bad = [
        (name, kind, message, seconds, size)
        for name, (file, kind, message, seconds, size) in found.items()
        if (kind, file in message) not in (("ValueError", True), ("FileNotFoundError", True))
        or seconds > MAX_SECONDS
        or size > MAX_BYTES
        or "memory" in message.lower()
    ]
    assert bad == []
    assert [*empty.iterdir()] == []
    assert sorted(path.name for path in files.iterdir()) == sorted(names)
