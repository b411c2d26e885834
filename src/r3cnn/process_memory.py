"""How much memory this process takes, as the kernel counts it (Linux)."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Bytes of physical memory that this process held at its worst moment so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def private_bytes() -> int:
    """Bytes of physical memory that belong to this process alone: of a forked one, what it did not share."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Clean:", "Private_Dirty:")))
