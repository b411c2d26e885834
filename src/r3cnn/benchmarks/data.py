"""``r3cnn bench data``: images of a data set, ready to train on, beside torchvision's own way to load COCO."""

from __future__ import annotations

import contextlib
import io

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from r3cnn.batch import Batch
from r3cnn.benchmarks.harness import Row, take_turns
from r3cnn.data.annotations import classes_of
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.loading import collate
from r3cnn.data.reading import read_annotations
from r3cnn.data.samplers import Draw
from r3cnn.data.split import Split
from r3cnn.structures import Size

OURS, BASELINE = "ours", "torchvision's CocoDetection"
FLIP = 0.5
TorchvisionExample = tuple[Tensor, dict[str, Tensor]]


def data_rows(
    *,
    root: str,
    images: str,
    annotations: str,
    limit: int,
    image_size: Size,
    batch_size: int,
    repetitions: int,
    warmups: int,
    seed: int,
) -> list[Row]:
    """Seconds per image with one loading process.

    Raises:
        FileNotFoundError: If the data set is not there.
    """
    split = Split(images=images, annotations=annotations, keep_empty=False, limit=limit).below(root)
    if not split.annotation_file.is_file():
        raise FileNotFoundError(f"{split.annotation_file}: there is no such file; R3CNN_DATA says where data sets are")
    ours, count = our_loader(split, image_size, batch_size, seed)
    theirs = torchvision_loader(split, image_size, batch_size, count)
    calls = {
        OURS: lambda: sum(sum(batch.counts) for batch in ours),
        BASELINE: lambda: sum(sum(len(target["labels"]) for target in targets) for _, targets in theirs),
    }
    turns = take_turns(calls, repetitions=repetitions, warmups=warmups)
    title = f"one image with its masks at {image_size[1]}x{image_size[0]}: {OURS} / {BASELINE}"
    return [turns.row(title, OURS, BASELINE, 1 / 3, per_call=count)]


def our_loader(split: Split, image_size: Size, batch_size: int, seed: int) -> tuple[DataLoader[Batch], int]:
    """All images in batches, in the file's order; and their number."""
    annotations = read_annotations(split.annotation_file, classes_of(split.annotation_file), "skip")
    indices = split.select(annotations)
    data = CocoDataset(annotations, split.image_folder, indices=indices, image_size=image_size, flip=FLIP, seed=seed)
    draws = [Draw(0, item) for item in range(len(data))]
    batches = [draws[start : start + batch_size] for start in range(0, len(data), batch_size)]
    loader: DataLoader[Batch] = DataLoader(
        data,  # type: ignore[arg-type]  # it gives examples, collate makes batches of them
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=1,
        persistent_workers=True,
    )
    return loader, len(data)


def torchvision_loader(split: Split, image_size: Size, batch_size: int, count: int) -> DataLoader[TorchvisionExample]:
    """The same with ``wrap_dataset_for_transforms_v2`` and masks, as in torchvision's reference scripts."""
    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize(image_size[0], max_size=image_size[1]),
            v2.RandomHorizontalFlip(FLIP),
            v2.ToDtype(torch.float32, scale=True),
            v2.SanitizeBoundingBoxes(),
        ]
    )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        raw = CocoDetection(split.image_folder, str(split.annotation_file), transforms=transforms)
    data = wrap_dataset_for_transforms_v2(raw, target_keys=("boxes", "labels", "masks"))
    items = [item for item, image_id in enumerate(raw.ids) if raw.coco.getAnnIds(image_id, iscrowd=False)][:count]
    return DataLoader(
        Subset(data, items),
        batch_size=batch_size,
        collate_fn=lambda examples: tuple(zip(*examples, strict=True)),
        num_workers=1,
        persistent_workers=True,
    )
