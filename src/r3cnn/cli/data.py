"""``r3cnn data``: checks a data set, shows it as the network sees it, and makes one from mask images."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from omegaconf import DictConfig

from r3cnn.batch import Batch
from r3cnn.cli.configs import fill_classes, path_of, plain, set_classes, settle_folders
from r3cnn.cli.folder_lock import sole_writer, writing_file
from r3cnn.cli.parts import build_data
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.data.annotations import classes_of
from r3cnn.data.checks import AnnotationError
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.data.inspection import Inspection, inspect, shared_images
from r3cnn.data.mask_folders import MaskReading, convert_masks, write_coco
from r3cnn.data.split import Split
from r3cnn.data.statistics import statistics_of
from r3cnn.names import visible
from r3cnn.run_files import write_json
from r3cnn.training.build import build

if TYPE_CHECKING:
    from r3cnn.reporting.data_sets import Found

FOUND, PICTURE = "check.json", "check.png"
FOUND_PROBLEMS = 1


def run(config: DictConfig) -> None:
    """Runs the part that was asked for."""
    parts: dict[str, Callable[[DictConfig], None]] = {"check": check, "browse": browse, "convert": convert}
    parts[config.part](config)


def check(config: DictConfig) -> None:
    """Prints and writes everything that is wrong and what there is; ends with 1 if anything is wrong."""
    from r3cnn.reporting.data_sets import plot_statistics, print_check

    folder = Path(config.output_dir)
    found = inspected(config)
    with sole_writer(folder):
        write_json(found, folder / FOUND, indent=1)
        print_check(found, config.max_lines)
        if any(split["statistics"] for split in found.values()):
            with left_out_on_error(PICTURE):
                plot_statistics(found, folder / PICTURE)
    print(f"written to {folder / FOUND}")
    if any(split["problems"] for split in found.values()):
        sys.exit(FOUND_PROBLEMS)


def inspected(config: DictConfig) -> dict[str, Found]:
    """Content of ``check.json``: for each data set its file, problems, notes and statistics."""
    settle_folders(config)
    try:
        fill_classes(config)
    except AnnotationError as error:  # the validation file is all that can be looked at, with classes of its own
        train = _unreadable(Path(config.data.train.annotations), error)
        return {"train": train} if config.data.val is None else {"train": train, "val": _val_alone(config)}
    data = build_data(plain(config.data), trusted=None)
    data.prepare_data()
    found = {
        name: _inspect(split, data, processes(config.data.workers))
        for name, split in (("train", data.train), ("val", data.val))
        if split is not None
    }
    entries = {name: _entry(one, _statistics(one, data)) for name, one in found.items()}
    if data.val is not None and data.train.annotation_file != data.val.annotation_file:
        entries["val"]["notes"] = [*found["val"].notes, *shared_images(found["val"], found["train"])]
    return entries


def _unreadable(file: Path, error: AnnotationError) -> Found:
    return _entry(Inspection(file, (str(error),), (), None, {}), {})


def _val_alone(config: DictConfig) -> Found:
    file = Path(config.data.root).expanduser() / Path(config.data.val.annotations).expanduser()
    try:
        set_classes(config, classes_of(file))
    except AnnotationError as error:
        return _unreadable(file, error)
    data = build_data(plain(config.data), trusted=None)
    found = _inspect(data.val_split, data, processes(config.data.workers))
    return _entry(found, _statistics(found, data))


def processes(workers: int) -> int:
    """Processes that look at images: as many as there are cores, as nothing else runs; none where none may load."""
    return workers and max(workers, len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def _inspect(split: Split, data: CocoDataModule, workers: int) -> Inspection:
    return inspect(
        split,
        data.classes,
        is_training=split is data.train,
        max_overhang=data.max_overhang,
        workers=workers,
        reader=data.reader,
    )


def _entry(inspection: Inspection, statistics: dict[str, object]) -> Found:
    found = {
        "file": str(inspection.file),
        "problems": list(inspection.problems),
        "notes": list(inspection.notes),
        "statistics": statistics,
    }
    return cast("Found", found)


def _statistics(inspection: Inspection, data: CocoDataModule) -> dict[str, object]:
    if inspection.annotations is None:
        return {}
    return statistics_of(inspection.annotations, data.classes, data.image_size)


def browse(config: DictConfig) -> None:
    """Draws images as they come out of the data loader, with their padding, boxes, masks and crowds."""
    from r3cnn.reporting.data_sets import draw_input

    settle_folders(config)
    fill_classes(config)
    data = build_data(plain(config.data), trusted=None)
    folder = Path(config.output_dir) / "browse"
    shown = 0
    with sole_writer(Path(config.output_dir)):
        for batch in batches(data, config.split, config.epoch):
            for image, target, image_id in zip(batch.images, batch.targets, batch.image_ids, strict=True):
                path = folder / f"{config.split}_{config.epoch}_{shown:03d}_image_{image_id}.png"
                draw_input(image, target, data.classes, path, canvas=batch.canvas, padding=data.mean)
                shown += 1
                if shown == config.count:
                    print(f"{shown} pictures in {folder}")
                    return
    print(f"{shown} pictures in {folder}: there are no more images")


def batches(data: CocoDataModule, split: str, epoch: int) -> Iterator[Batch]:
    """Batches as a run gets them."""
    data.set_position(epoch, 0)
    yield from data.train_dataloader() if split == "train" else data.val_dataloader()


def convert(config: DictConfig) -> None:
    """Writes a COCO file from folders of mask images.

    Raises:
        ValueError: If a folder or the output is not named, or for anything that cannot be read.
    """
    missing = [name for name in ("images", "masks", "output") if config[name] is None]
    if missing:
        raise ValueError(f"`r3cnn data convert` needs {', '.join(f'{name}=…' for name in missing)}")
    reading = build(plain(config.masks_as), MaskReading, "masks_as")
    images, masks, output = (path_of(config, key) for key in ("images", "masks", "output"))
    content = convert_masks(images, masks, reading)
    with writing_file(output):
        write_coco(content, output)
    names = [visible(str(category["name"])) for category in content["categories"]]
    print(
        f"{len(content['images'])} images, {len(content['annotations'])} objects, classes {', '.join(names)}: "
        f"{config.output}"
    )
