"""Training steps on images from files, so that a loader that cannot keep pace shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch.utils.data import DataLoader

from r3cnn.batch import Batch, Example
from r3cnn.benchmarks.cases import Case
from r3cnn.benchmarks.comparisons import timed
from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.setting import REFERENCE, Bench
from r3cnn.benchmarks.steps import Step, imitate_training, new_optimizer, update
from r3cnn.data.annotations import classes_of
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.loading import collate
from r3cnn.data.reading import read_annotations
from r3cnn.data.samplers import Draw
from r3cnn.data.split import Split
from r3cnn.detector import RCNN
from r3cnn.ops.images import normalize_images

RECURSIVE = "r3cnn_naive"
# Of one H200 in bf16: images per second of Mask R-CNN, and R3-CNN's beside them.
GPU_GOAL, GPU_SHARE = 60.0, 0.57
FLIP = 0.5


@dataclass(frozen=True)
class RealData:
    """What is trained on.

    Attributes:
        split: Images and annotations; their classes are at most those of the network.
        image_size: Upper bounds of the (shorter, longer) side in pixels.
        workers: Loading processes.
        steps: Steps of one measurement.
    """

    split: Split
    image_size: tuple[int, int]
    workers: int
    steps: int


def real_data_rows(bench: Bench, case: Case, data: RealData) -> list[Row]:
    """Seconds per image of Mask R-CNN and R3-CNN, which take turns at the same loader."""
    loader = endless_loader(data, case.shape.batch_size, bench.effort.seed)
    batches = iter(cast("DataLoader[Batch]", loader))
    calls = {name: real_steps(bench, case, name, batches, data.steps) for name in (REFERENCE, RECURSIVE)}
    images = case.shape.batch_size * data.steps
    seconds = {name: measurement.seconds / images for name, measurement in timed(calls, bench).items()}
    is_goal = bench.device.type == "cuda" and case.precision == "bf16"
    name = f"training from files with {data.workers} loading processes, seconds per image, {case.name}"
    return [
        Row(f"{name}: {REFERENCE} / the goal of one H200", seconds[REFERENCE], 1 / GPU_GOAL, 1.0, accept=is_goal),
        Row(f"{name}: {RECURSIVE} / {REFERENCE}", seconds[RECURSIVE], seconds[REFERENCE], 1 / GPU_SHARE, is_goal),
    ]


def endless_loader(data: RealData, batch_size: int, seed: int) -> DataLoader[Example]:
    """Batches of the images in their order, wide ones and high ones apart, epoch after epoch."""
    annotations = read_annotations(data.split.annotation_file, classes_of(data.split.annotation_file), "skip")
    indices = data.split.select(annotations)
    images = CocoDataset(
        annotations, data.split.image_folder, indices=indices, image_size=data.image_size, flip=FLIP, seed=seed
    )
    is_wide = (images.sizes[:, 1] >= images.sizes[:, 0]).tolist()
    wide, high = ([item for item, is_it in enumerate(is_wide) if is_it == kind] for kind in (True, False))
    return DataLoader(
        images,
        batch_sampler=Endless([wide, high], batch_size),
        collate_fn=collate,
        num_workers=data.workers,
        pin_memory=torch.cuda.is_available(),
    )


class Endless:
    """Full batches of each group, again and again.

    Args:
        groups: Items that may share a batch; the last ones of a group, if they fill none, are left out.
        batch_size: Items of a batch.

    Raises:
        ValueError: If no batch can be filled.
    """

    def __init__(self, groups: Sequence[Sequence[int]], batch_size: int) -> None:
        filled = [item for group in groups for item in group[: len(group) // batch_size * batch_size]]
        if not filled:
            raise ValueError(f"groups of {[len(group) for group in groups]} images fill no batch of {batch_size}")
        self.batches = [filled[start : start + batch_size] for start in range(0, len(filled), batch_size)]

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = 0
        while True:
            for items in self.batches:
                yield [Draw(epoch, item) for item in items]
            epoch += 1


def real_steps(bench: Bench, case: Case, system: str, batches: Iterator[Batch], steps: int) -> Step:
    """So many training steps; returns the last loss. Nothing is read from the device before that."""
    model = bench.build(system, bench.own).to(bench.device)
    imitate_training(model, bench.draw(case.shape), bench.effort.candidates)
    optimizer = new_optimizer(model)
    generator = torch.Generator(bench.device).manual_seed(bench.effort.seed)

    def run() -> float:
        model.train()
        for step in range(steps):
            loss = total_loss(model, next(batches).to(bench.device), bench, case, generator)
            loss.backward()
            if step < steps - 1:
                optimizer.step()
                optimizer.zero_grad()
        return update(optimizer, loss.detach())

    return run


def total_loss(model: RCNN, batch: Batch, bench: Bench, case: Case, generator: torch.Generator) -> torch.Tensor:
    """Weighted sum of all losses of a batch on the device."""
    with case.context(bench.device):
        images = normalize_images(batch.images, batch.canvas, bench.mean, bench.std)
        raw = model.losses(images, batch.sizes, batch.targets, generator)
    weights = model.loss_weights()
    return torch.stack([weights[key] * value for key, value in raw.items()]).sum()
