"""The index of an annotation file of COCO's size, beside pycocotools; each read in a process of its own.

Times are the processor's, of all threads and the system's calls. The reads take turns of a minute, too few of them for
a median to remove what else a busy machine does; on an idle one it is the time by the clock, as both use one thread.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from r3cnn.benchmarks.coco_sized import IndexSize, class_names, write_coco_sized
from r3cnn.benchmarks.rows import Row
from r3cnn.process_memory import peak_bytes, resident_bytes

OURS, PEER, CACHED = "ours", "pycocotools.COCO", "ours, kept from before"
MEGABYTE = 1e6


@dataclass(frozen=True)
class Reading:
    """What one read took.

    Attributes:
        seconds: Processor time.
        peak: Bytes of memory at the worst moment, beyond what the process had after its imports.
        objects: Objects (ours) or annotations (pycocotools) that were found.
    """

    seconds: float
    peak: float
    objects: int


def index_rows(*, images: int, annotations: int, repetitions: int, seed: int) -> list[Row]:
    """Processor time and memory from the file to an index that images can be looked up in; ours is checked as well.

    Args:
        images: Number of images in the file, which is written into a temporary folder.
        annotations: Number of annotations in it.
        repetitions: Rounds; the median counts.
        seed: Of the file.
    """
    readings: dict[str, list[Reading]] = {OURS: [], PEER: [], CACHED: []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "instances.json")
        write_coco_sized(file, IndexSize(images, annotations, seed))
        _read_alone(CACHED, file)
        for _ in range(repetitions):
            for who, found in readings.items():
                found.append(_read_alone(who, file))
    seconds = {who: statistics.median(one.seconds for one in found) for who, found in readings.items()}
    peaks = {who: statistics.median(one.peak for one in found) / MEGABYTE for who, found in readings.items()}
    label = f"processor time of the index of {images} images, {annotations} annotations"
    return [
        Row(f"{label}: {OURS} / {PEER}", seconds[OURS], seconds[PEER], 0.5, True),
        Row(f"its memory at the worst moment: {OURS} / {PEER}", peaks[OURS], peaks[PEER], 1 / 3, True, "MB"),
        Row(f"{label}: {CACHED} / {PEER}", seconds[CACHED], seconds[PEER], None, False),
    ]


def _read_alone(who: str, file: Path) -> Reading:
    """A read in a new process."""
    command = [sys.executable, "-m", "r3cnn.benchmarks.index_reading", who, str(file)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Reading(**json.loads(done.stdout.splitlines()[-1]))


def _measure(read: Callable[[Path], int], file: Path) -> Reading:
    before, start = resident_bytes(), time.process_time()
    objects = read(file)
    return Reading(time.process_time() - start, peak_bytes() - before, objects)


def _our_reader(cache: bool) -> Callable[[Path], int]:
    from r3cnn.data.reading import read_annotations

    def read(file: Path) -> int:
        kept = file.parent / "kept" if cache else None
        return len(read_annotations(file, class_names(), index_cache=kept).labels)

    return read


def _peer_reader() -> Callable[[Path], int]:
    from pycocotools.coco import COCO

    return lambda file: len(COCO(str(file)).anns)


if __name__ == "__main__":
    name, path = sys.argv[1:]
    reader = _peer_reader() if name == PEER else _our_reader(cache=name == CACHED)
    print(json.dumps(asdict(_measure(reader, Path(path)))))
