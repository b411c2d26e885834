"""Memory of the loading processes, epoch after epoch, beside workers that look objects up in ``pycocotools.COCO``."""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import DataLoader, Dataset, Sampler

from r3cnn.batch import Example
from r3cnn.benchmarks.coco_sized import HEIGHT, WIDTH, IndexSize, class_names, write_coco_sized
from r3cnn.benchmarks.rows import Row
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.loading import collate
from r3cnn.data.reading import read_annotations
from r3cnn.data.samplers import Draw
from r3cnn.process_memory import private_bytes

Item = TypeVar("Item")
CocoRecord = dict[str, object]
MEGABYTE = 1e6
PEER = "pycocotools.COCO"
IMAGE_SIZE = (60, 80)
FLAT = 1.15
"""Largest growth since the first batch that counts as none: allocators keep what batches of other shapes needed."""


class ReshuffledBatches(Sampler[list[int]]):
    """All items in batches, in another order each time: what a worker touches first and what not differs per epoch.

    Args:
        count: Items.
        batch_size: Items that are put together.
        seed: With the epoch, it decides on the order.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._count, self._batch_size, self._seed, self._epoch = count, batch_size, seed, 0

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(self._count).tolist()
        self._epoch += 1
        yield from (order[start : start + self._batch_size] for start in range(0, self._count, self._batch_size))


class Packed(Dataset[Example]):
    """Our data set, asked by number."""

    def __init__(self, data: CocoDataset) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, item: int) -> Example:
        """Image and objects of item."""
        return self._data[Draw(0, item)]


class LookedUp(Dataset[list[CocoRecord]]):
    """Objects of an image as ``pycocotools.COCO`` has them, which is how most loaders of COCO hold them."""

    def __init__(self, file: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            self._coco = COCO(str(file))
        self._image_ids = np.array(sorted(self._coco.imgs))

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitem__(self, item: int) -> list[CocoRecord]:
        """Annotation records of an image."""
        return list(self._coco.loadAnns(self._coco.getAnnIds(int(self._image_ids[item]))))


def memory_rows(*, images: int, annotations: int, epochs: int, workers: int, batch_size: int, seed: int) -> list[Row]:
    """What belongs to a loading process alone at its first batch and after the last epoch.

    Args:
        images: Images of the drawn annotation file; they all show the same picture.
        annotations: Annotations in it.
        epochs: How often the workers see everything, at least 2.
        workers: Loading processes.
        batch_size: Images that are put together.
        seed: Of the file and of the order of its images.

    Raises:
        ValueError: For less than two epochs.
    """
    if epochs < 2:
        raise ValueError(f"epochs is {epochs}: growth shows from the second one on")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "instances.json")
        write_coco_sized(file, IndexSize(images, annotations, seed))
        ours = our_memory(file, epochs=epochs, workers=workers, batch_size=batch_size, seed=seed)
        theirs = peer_memory(file, epochs=epochs, workers=workers, batch_size=batch_size, seed=seed)
    first, last = ours[0] / MEGABYTE, ours[-1] / MEGABYTE
    peer_first, peer_last = theirs[0] / MEGABYTE, theirs[-1] / MEGABYTE
    growth = f"a worker's own memory: after epoch {epochs} / at its first batch"
    both = f"the same after epoch {epochs}: ours, images and all / {PEER}, annotations alone"
    return [
        Row(growth, last, first, FLAT, True, "MB"),
        Row(f"the same of {PEER}", peer_last, peer_first, None, False, "MB"),
        Row(both, last, peer_last, None, False, "MB"),
    ]


def our_memory(file: Path, *, epochs: int, workers: int, batch_size: int, seed: int) -> list[float]:
    """Bytes that a worker has for itself, at its first batch and after each epoch, loading images and all objects."""
    annotations = read_annotations(file, class_names())
    folder = file.parent / "images"
    folder.mkdir()
    picture = folder / "picture.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(picture)
    for name in annotations.file_names.tolist():
        (folder / name).symlink_to(picture)
    data = CocoDataset(annotations, folder, indices=np.arange(len(annotations)), image_size=IMAGE_SIZE)
    return _own_memory(
        _loader(Packed(data), _packed, count=len(data), workers=workers, batch_size=batch_size, seed=seed), epochs
    )


def peer_memory(file: Path, *, epochs: int, workers: int, batch_size: int, seed: int) -> list[float]:
    """The same, looking annotations up and nothing else."""
    data = LookedUp(file)
    return _own_memory(
        _loader(data, _looked_up, count=len(data), workers=workers, batch_size=batch_size, seed=seed), epochs
    )


def _loader(
    data: Dataset[Item],
    weigh: Callable[[Sequence[Item]], tuple[int, int]],
    *,
    count: int,
    workers: int,
    batch_size: int,
    seed: int,
) -> DataLoader[Item]:
    """Batches from forked workers; only these share what the process that makes them holds."""
    return DataLoader(
        data,
        batch_sampler=ReshuffledBatches(count, batch_size, seed),
        collate_fn=weigh,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="fork",
    )


def _packed(examples: Sequence[Example]) -> tuple[int, int]:
    """Process and its own bytes while it holds a batch."""
    batch = collate(examples)
    return os.getpid(), private_bytes() if len(batch) else 0


def _looked_up(records: Sequence[list[CocoRecord]]) -> tuple[int, int]:
    return os.getpid(), private_bytes() if len(records) else 0


def _own_memory(loader: Iterable[tuple[int, int]], epochs: int) -> list[float]:
    """Bytes at the first batch, then at the end of each epoch (the median of its last quarter), mean of the workers.

    The first batch and not the first epoch is what growth is told by: copying what was shared is over by then.
    """
    firsts: dict[int, int] = {}
    ends = []
    for _ in range(epochs):
        seen: dict[int, list[int]] = defaultdict(list)
        for process, own in loader:
            firsts.setdefault(process, own)
            seen[process].append(own)
        ends.append(statistics.mean(statistics.median(own[-max(len(own) // 4, 1) :]) for own in seen.values()))
    return [statistics.mean(firsts.values()), *ends]
