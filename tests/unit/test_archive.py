from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hostile_checkpoints import HOSTILE

from r3cnn.archive import is_whole, read_archive

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
    before, start = status("VmRSS"), time.process_time()  # other programs run as well
    signal.alarm(100)
    try:
        load_checkpoint(path)
        kind, message = "read", ""
    except BaseException as error:
        kind, message = type(error).__name__, str(error)
    print(json.dumps([path.name, kind, message, time.process_time() - start, status("VmHWM") - before]), flush=True)
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


def test_of_a_damaged_checkpoint_the_newest_whole_one_beside_it_is_named(tmp_path: Path) -> None:
    for age, name in enumerate(("last", "best", "older")):
        torch.save({"w": torch.arange(100.0)}, tmp_path / f"{name}.ckpt")
        os.utime(tmp_path / f"{name}.ckpt", (10_000 - age,) * 2)
    for name in ("last", "best"):
        assert is_whole(tmp_path / f"{name}.ckpt")
        content = bytearray((tmp_path / f"{name}.ckpt").read_bytes())
        content[content.index(struct.pack("<f", 50.0))] ^= 4
        (tmp_path / f"{name}.ckpt").write_bytes(content)
        assert not is_whole(tmp_path / f"{name}.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged.*checksum of its entry.*; \S*older\.ckpt is whole"):
        read_archive(tmp_path / "last.ckpt")
    read_archive(tmp_path / "older.ckpt")


def test_files_of_torch_before_zip_are_read_as_foreign_ones_alone_and_within_their_size(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    found = read_archive(path, inert={"some.name": dict})
    assert isinstance(found, dict)
    assert found["w"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="go through `r3cnn convert` first"):
        read_archive(path)
    count = content.index(b"cpuq") + content[content.index(b"cpuq") :].index(b"K\x03")
    path.write_bytes(content[:count] + b"J\xff\xff\xff\x7f" + content[count + 2 :])
    with pytest.raises(ValueError, match=r"declares 8589934588 bytes"):
        read_archive(path, inert={"some.name": dict})
    path.write_bytes(b"storages" + bytes(1000))
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        read_archive(path, inert={"some.name": dict})


@pytest.mark.parametrize("mapped", [True, False])
def test_a_checkpoint_is_read_from_a_folder_whose_name_is_not_utf_8(tmp_path: Path, mapped: bool) -> None:
    path = tmp_path / os.fsdecode(b"u\xff") / "last.ckpt"
    path.parent.mkdir()
    with path.open("wb") as file:
        torch.save({"weight": torch.arange(3)}, file)
    content = read_archive(path, mapped=mapped)
    assert isinstance(content, dict)
    assert content["weight"].tolist() == [0, 1, 2]
