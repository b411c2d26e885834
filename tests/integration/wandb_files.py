"""Makes Weights & Biases runs without a login and reads their files: LevelDB's log format around protobuf records."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import pytest
import wandb
from wandb.proto import wandb_internal_pb2 as pb

MAGIC = b":W&B"
FILE_HEADER, BLOCK, RECORD_HEADER = 7, 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class WandbFile:
    """Content of one file, as the server would be told it."""

    run: pb.RunRecord
    config: dict[str, object] = field(default_factory=dict)
    history: list[dict[str, object]] = field(default_factory=list)
    summary: dict[str, object] = field(default_factory=dict)
    metrics: dict[str, pb.MetricRecord] = field(default_factory=dict)
    exit_code: int | None = None
    artifacts: list[pb.ArtifactRecord] = field(default_factory=list)

    def values(self, key: str) -> list[object]:
        """All that was logged under a name, in the order of logging."""
        return [row[key] for row in self.history if key in row]

    def last(self, key: str) -> dict[str, object]:
        """What was logged last under the name of something that is no number."""
        value = self.values(key)[-1]
        assert isinstance(value, dict)
        return value

    @property
    def keys(self) -> set[str]:
        """Everything that was logged."""
        return {key for row in self.history for key in row}


def read_run(folder: Path) -> WandbFile:
    """Reads the only file of an ``offline-run-*`` folder."""
    (path,) = folder.glob("*.wandb")
    records = [pb.Record.FromString(one) for one in raw_records(path.read_bytes())]
    found = WandbFile(run=next(record.run for record in records if record.HasField("run")))
    _take_config(found, found.run.config)
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind == "config":
            _take_config(found, record.config)
        elif kind == "history":
            found.history.append(_items(record.history.item))
        elif kind == "summary":
            found.summary |= _items(record.summary.update)
        elif kind == "metric":
            found.metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "request" and record.request.HasField("log_artifact"):
            found.artifacts.append(record.request.log_artifact.artifact)
    return found


def raw_records(content: bytes) -> list[bytes]:
    """The records of a log, put together from the parts that lie in its blocks."""
    assert content[:4] == MAGIC
    records, parts, place = [], b"", FILE_HEADER
    while place + RECORD_HEADER <= len(content):
        if BLOCK - place % BLOCK < RECORD_HEADER:  # the rest of a block that holds no header is padding
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        data = content[place + RECORD_HEADER : place + RECORD_HEADER + length]
        assert crc32(bytes([kind]) + data) == int.from_bytes(content[place : place + 4], "little")
        parts = data if kind in (FULL, FIRST) else parts + data
        if kind in (FULL, LAST):
            records.append(parts)
        place += RECORD_HEADER + length
    return records


def _take_config(found: WandbFile, config: pb.ConfigRecord) -> None:
    found.config |= _items(config.update)


def _items(items: object) -> dict[str, object]:
    """Names and values; nested names are joined by dots."""
    content: dict[str, object] = {}
    for item in items:  # type: ignore[attr-defined]
        name = list(item.nested_key) or [item.key]
        inner = content
        for part in name[:-1]:
            inner = inner.setdefault(part, {})  # type: ignore[assignment]
        inner[name[-1]] = json.loads(item.value_json)
    return content


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """That of a user without a login, with these variables; the library reads it anew and leaves no process behind."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name, value in {"NETRC": os.devnull, "WANDB_API_KEY": "", **variables}.items():
            patch.setenv(name, value)
        wandb.teardown()
        try:
            yield
        finally:
            wandb.teardown()


def runs_in(folder: Path) -> list[Path]:
    """Folders of the offline runs, in the order of their beginning."""
    return sorted((folder / "wandb").glob("offline-run-*"), key=lambda path: path.stat().st_ctime_ns)
