"""``r3cnn bench index``: the index of an annotation file of COCO's size, beside pycocotools.

Each read has a process of its own, and its time is the processor's: the reads take turns of a minute, too few of them
for a median to remove what else a busy machine does. On an idle one it is the time by the clock, as both have one
thread.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
from functools import partial
from pathlib import Path

from pycocotools.coco import COCO

from r3cnn.benchmarks.coco_sized import CLASS_NAMES, write_coco_sized
from r3cnn.benchmarks.harness import MB, Alone, Row, Turns, compare, run_alone
from r3cnn.data.reading import read_annotations

OURS, CACHED, BASELINE = "ours", "ours, kept from before", "pycocotools.COCO"


def index_rows(*, images: int, annotations: int, repetitions: int, seed: int) -> list[Row]:
    """Processor time and memory from the file to an index that images can be looked up in; ours is checked as well.

    Args:
        images: Number of images in the file, which is written into a temporary folder.
        annotations: Number of annotations in it.
        repetitions: Rounds; the median counts.
        seed: Of the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, cache = Path(folder, "instances.json"), Path(folder, "cache")
        write_coco_sized(file, images, annotations, seed)
        calls = {
            OURS: partial(read_ours, file, None),
            CACHED: partial(read_ours, file, cache),
            BASELINE: partial(read_with_pycocotools, file),
        }
        run_alone(calls[CACHED])  # fills the cache
        found: dict[str, list[Alone]] = {name: [] for name in calls}
        for _ in range(repetitions):
            for name, call in calls.items():
                found[name].append(run_alone(call))
    turns = Turns({name: [one.seconds for one in each] for name, each in found.items()}, {})
    memory = {name: statistics.median(one.extra_bytes for one in each) / MB for name, each in found.items()}
    title = f"processor time of the index of {images} images, {annotations} annotations"
    return [
        turns.row(f"{title}: {OURS} / {BASELINE}", OURS, BASELINE, 0.5),
        compare(f"its memory at the worst moment: {OURS} / {BASELINE}", memory[OURS], memory[BASELINE], 1 / 3, "MB"),
        turns.row(f"{title}: {CACHED} / {BASELINE}", CACHED, BASELINE),
    ]


def read_ours(file: Path, cache: Path | None) -> int:
    """Objects that our reader finds."""
    return len(read_annotations(file, CLASS_NAMES, index_cache=cache).labels)


def read_with_pycocotools(file: Path) -> int:
    """Annotations that pycocotools finds."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        return len(COCO(str(file)).anns)
