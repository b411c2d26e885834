"""``r3cnn bench memory``: memory of the loading processes, beside those of torchvision's CocoDetection."""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.datasets import CocoDetection

from r3cnn.batch import Example
from r3cnn.benchmarks.harness import MB, Row, compare
from r3cnn.benchmarks.index import CLASS_NAMES, HEIGHT, WIDTH, write_coco_sized
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.loading import collate
from r3cnn.data.reading import read_annotations
from r3cnn.data.samplers import Draw
from r3cnn.process_memory import private_bytes

BASELINE = "torchvision's CocoDetection"
IMAGE_SIZE = (60, 80)
FLAT = 1.15
"""Largest growth since the first batch that counts as none: allocators keep what batches of other shapes needed."""


def memory_rows(*, images: int, annotations: int, epochs: int, workers: int, batch_size: int, seed: int) -> list[Row]:
    """What belongs to a loading process alone at its first batch and after the last epoch."""
    settings = {"epochs": epochs, "workers": workers, "batch_size": batch_size, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "instances.json")
        write_coco_sized(file, images, annotations, seed)
        ours, theirs = (own_memory(data, **settings) for data in data_sets(file))
    growth = f"a worker's own memory: after epoch {epochs} / at its first batch"
    both = f"the same after epoch {epochs}: ours / {BASELINE}"
    return [
        compare(growth, ours[-1] / MB, ours[0] / MB, FLAT, "MB"),
        compare(f"the same of {BASELINE}", theirs[-1] / MB, theirs[0] / MB, unit="MB"),
        compare(both, ours[-1] / MB, theirs[-1] / MB, unit="MB"),
    ]


def data_sets(file: Path) -> tuple[Dataset[object], Dataset[object]]:
    """Ours and torchvision's, which holds objects as pycocotools does; all images show the same picture."""
    annotations = read_annotations(file, CLASS_NAMES)
    folder = file.parent / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(folder / "picture.jpg")
    for name in annotations.file_names.tolist():
        (folder / name).symlink_to(folder / "picture.jpg")
    data = CocoDataset(annotations, folder, indices=np.arange(len(annotations)), image_size=IMAGE_SIZE)
    draws = cast("list[int]", [Draw(0, item) for item in range(len(data))])  # what `Subset` hands on need not be int
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        return Subset(data, draws), CocoDetection(folder, str(file))


def own_memory(data: Dataset[object], *, epochs: int, workers: int, batch_size: int, seed: int) -> list[float]:
    """Bytes of a worker at its first batch, then at the end of each epoch: means over the epoch's last quarter.

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
    found = [[*loader] for _ in range(epochs)]  # workers take turns at the batches
    return [statistics.mean(part) for part in (found[0][:workers], *(own[-max(len(own) // 4, 1) :] for own in found))]


def weighed(items: list[object]) -> int:
    """Bytes that are this process's own while it holds a batch."""
    examples = [item for item in items if isinstance(item, Example)]
    batch = collate(examples) if examples else items
    return private_bytes() if len(batch) else 0
