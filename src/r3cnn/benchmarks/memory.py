"""``r3cnn bench memory``: memory of the loading processes, beside workers that look objects up in pycocotools."""

from __future__ import annotations

import contextlib
import io
import os
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import DataLoader, Dataset, Subset

from r3cnn.batch import Example
from r3cnn.benchmarks.coco_sized import CLASS_NAMES, HEIGHT, WIDTH, write_coco_sized
from r3cnn.benchmarks.harness import MB, Row, compare
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.loading import collate
from r3cnn.data.reading import read_annotations
from r3cnn.data.samplers import Draw
from r3cnn.process_memory import private_bytes

BASELINE = "pycocotools.COCO"
IMAGE_SIZE = (60, 80)
FLAT = 1.15
"""Largest growth since the first batch that counts as none: allocators keep what batches of other shapes needed."""


class LookedUp(Dataset[object]):
    """Objects of an image as ``pycocotools.COCO`` has them, which is how most loaders of COCO hold them."""

    def __init__(self, file: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            self._coco = COCO(str(file))
        self._image_ids = np.array(sorted(self._coco.imgs))

    def __len__(self) -> int:
        return len(self._image_ids)

    def __getitem__(self, item: int) -> object:
        """Annotation records of an image."""
        return self._coco.loadAnns(self._coco.getAnnIds(int(self._image_ids[item])))


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
    settings = {"epochs": epochs, "workers": workers, "batch_size": batch_size, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "instances.json")
        write_coco_sized(file, images, annotations, seed)
        ours = [own / MB for own in own_memory(our_data(file), **settings)]
        theirs = [own / MB for own in own_memory(LookedUp(file), **settings)]
    growth = f"a worker's own memory: after epoch {epochs} / at its first batch"
    both = f"the same after epoch {epochs}: ours, images and all / {BASELINE}, annotations alone"
    return [
        compare(growth, ours[-1], ours[0], FLAT, "MB"),
        compare(f"the same of {BASELINE}", theirs[-1], theirs[0], unit="MB"),
        compare(both, ours[-1], theirs[-1], unit="MB"),
    ]


def our_data(file: Path) -> Dataset[object]:
    """Our data set over an annotation file; all its images, beside the file, show the same picture."""
    annotations = read_annotations(file, CLASS_NAMES)
    folder = file.parent / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(folder / "picture.jpg")
    for name in annotations.file_names.tolist():
        (folder / name).symlink_to(folder / "picture.jpg")
    data = CocoDataset(annotations, folder, indices=np.arange(len(annotations)), image_size=IMAGE_SIZE)
    draws = cast("list[int]", [Draw(0, item) for item in range(len(data))])  # what `Subset` hands on need not be int
    return Subset(data, draws)


def own_memory(data: Dataset[object], *, epochs: int, workers: int, batch_size: int, seed: int) -> list[float]:
    """Bytes at the first batch, then at the end of each epoch (the median of its last quarter), mean of the workers.

    The first batch and not the first epoch is what growth is told by: copying what was shared is over by then. Workers
    are forked; only these share what the process that makes them holds. Every epoch has another order.
    """
    loader: DataLoader[object] = DataLoader(
        data,
        batch_size=batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
        collate_fn=weighed,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    firsts: dict[int, int] = {}
    ends = []
    for _ in range(epochs):
        seen: dict[int, list[int]] = defaultdict(list)
        for process, own in loader:
            firsts.setdefault(process, own)
            seen[process].append(own)
        ends.append(statistics.mean(statistics.median(own[-max(len(own) // 4, 1) :]) for own in seen.values()))
    return [statistics.mean(firsts.values()), *ends]


def weighed(items: list[object]) -> tuple[int, int]:
    """This process and its own bytes while it holds a batch."""
    examples = [item for item in items if isinstance(item, Example)]
    batch = collate(examples) if examples else items
    return os.getpid(), private_bytes() if len(batch) else 0
