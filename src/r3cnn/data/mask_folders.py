"""COCO files from folders of mask images: one mask per instance, or one index image per picture."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from r3cnn.data.loading import IMAGE_SUFFIXES, MAX_MEGAPIXELS, ImageReader, find_images, is_image_file, opened, upright
from r3cnn.disk import whole_file
from r3cnn.ranges import check_range
from r3cnn.structures import Size

Layout = Literal["folders", "index"]
Mask = npt.NDArray[np.bool_]
MOST_RUNS = 2**24
"""Runs of equal numbers down the columns of an index image."""


class Runs(TypedDict):
    """A mask as pycocotools holds it."""

    size: list[int]
    counts: bytes


ENDINGS = " ".join(sorted(IMAGE_SUFFIXES))
NAMED_AT_MOST = 3


@dataclass(frozen=True)
class MaskReading:
    """How mask images are to be read.

    Attributes:
        layout: ``folders``: the masks of ``a/b.jpg`` are the images in ``a/b/``, one per instance, or in folders in
            there that have the names of the classes. ``index``: ``a/b.png`` holds a number at each pixel.
        class_name: Class of what has no other.
        threshold: With ``folders``, a pixel belongs to the instance from this grey value on; None: every mask has to
            hold two values, of which the lower one is 0 (or one value).
        background: With ``index``, numbers that are no instance.
        class_divisor: With ``index``, the class of number ``n`` is ``n // class_divisor`` (1000 for Cityscapes); None:
            all have ``class_name``.
        class_ids: With ``class_divisor``, the name of each class; numbers of other classes are no instances.
        max_megapixels: Pictures and masks with more pixels are refused; None accepts any.
    """

    layout: Layout
    class_name: str = "object"
    threshold: int | None = None
    background: Sequence[int] = (0,)
    class_divisor: int | None = None
    class_ids: Mapping[int, str] = field(default_factory=dict)
    max_megapixels: float | None = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        check_range("(0, inf)", max_megapixels=self.max_megapixels)
        check_range("[0, 65535]", threshold=self.threshold, background=self.background or None)
        check_range("[1, inf)", class_divisor=self.class_divisor)
        if not self.class_name:
            raise ValueError("class_name is empty: the name of a class is needed")
        if (self.class_divisor is None) != (not self.class_ids):
            raise ValueError(
                f"class_divisor is {self.class_divisor}, class_ids is {dict(self.class_ids)}: both or none are needed"
            )


def convert_masks(images: Path, masks: Path, reading: MaskReading) -> dict[str, list[dict[str, object]]]:
    """Content of a COCO file; file names are relative to ``images``. A picture without a mask has no object.

    Categories are numbered from 1 in the order of their names; images and annotations in the order of their files.

    Args:
        images: Folder of the pictures; folders in it are looked through.
        masks: Folder of the masks, laid out like ``images``.
        reading: How to read them.

    Raises:
        ValueError: If there is no picture, masks of a picture that is not there, or a mask that cannot be read, is of
            another size than its picture, or is not of the layout; the message names the file.
    """
    pictures = _pictures(images)
    masks_of = _masks_by_picture(masks, {_key(picture, images) for picture in pictures}, reading.layout)
    reader = ImageReader(max_megapixels=reading.max_megapixels)
    instances = _from_folder if reading.layout == "folders" else _from_index
    records: list[dict[str, object]] = []
    entries: list[dict[str, object]] = []
    for image_id, picture in enumerate(pictures, start=1):
        size = reader.examine(picture).size
        name = picture.relative_to(images).as_posix()
        records.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
        key = _key(picture, images)
        paths = masks_of.get(key)
        for class_name, runs in instances(paths, masks / key, size, reading) if paths else ():
            entries.append({"image_id": image_id, "class": class_name, **_entry(runs)})
    names = sorted({str(entry["class"]) for entry in entries} | set(reading.class_ids.values()))
    ids = {name: number for number, name in enumerate(names or [reading.class_name], start=1)}
    annotations = [
        {"id": number, "category_id": ids[str(entry.pop("class"))], **entry}
        for number, entry in enumerate(entries, start=1)
    ]
    categories: list[dict[str, object]] = [{"id": number, "name": name} for name, number in ids.items()]
    return {"images": records, "annotations": annotations, "categories": categories}


def write_coco(content: Mapping[str, object], file: Path) -> None:
    """Writes a COCO file; it appears complete or not at all."""
    with whole_file(file) as draft:
        draft.write_text(json.dumps(content), encoding="utf-8")


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"images={folder} is no folder")
    found = find_images(folder, recursive=True)
    if not found:
        raise ValueError(f"images={folder} holds no picture: a file that ends in one of {ENDINGS} is needed")
    seen: dict[Path, Path] = {}
    for path in found:
        other = seen.setdefault(_key(path, folder), path)
        if other is not path:
            raise ValueError(f"{other} and {path} would have the same masks: their names differ only in the ending")
    return found


def _key(path: Path, folder: Path) -> Path:
    return path.relative_to(folder).with_suffix("")


def _masks_by_picture(masks: Path, pictures: set[Path], layout: Layout) -> dict[Path, list[Path]]:
    """Mask files of each picture that has any, in the order of their names."""
    if not masks.is_dir():
        raise ValueError(f"masks={masks} is no folder")
    nested = sorted(str(key) for key in pictures if pictures.intersection(key.parents))
    if nested and layout == "folders":
        raise ValueError(f"the masks of picture {nested[0]} would lie among those of {Path(nested[0]).parent}")
    files = sorted(path for path in masks.rglob("*") if is_image_file(path))
    found: dict[Path, list[Path]] = {}
    for path in files:
        folder = path.parent.relative_to(masks)
        of_folder = folder if folder in pictures else folder.parent
        found.setdefault(_key(path, masks) if layout == "index" else of_folder, []).append(path)
    lost = [path for key in found.keys() - pictures for path in found[key]]
    strangers = sorted({str(path if layout == "index" else path.parent) for path in lost})
    if not files:
        raise ValueError(f"masks={masks} holds no mask image: a file that ends in one of {ENDINGS} is needed")
    if strangers:
        more = f" and {len(strangers) - NAMED_AT_MOST} more" if len(strangers) > NAMED_AT_MOST else ""
        raise ValueError(
            f"there is no picture for the masks {', '.join(strangers[:NAMED_AT_MOST])}{more}: for a/b.jpg they are "
            f"{'a/b.png' if layout == 'index' else 'the images in a/b, or in a/b/CLASS'} (layout={layout})"
        )
    return found


def _from_folder(paths: Sequence[Path], folder: Path, size: Size, reading: MaskReading) -> Iterator[tuple[str, Runs]]:
    """Class and mask of each instance, in the order of the files."""
    for path in paths:
        values = _values(path, size, reading)
        inner = path.parent.relative_to(folder).as_posix()
        mask = _binary(path, values) if reading.threshold is None else values >= reading.threshold
        if mask.any():
            runs = coco_mask.encode(np.asfortranarray(mask).view(np.uint8))
            yield reading.class_name if inner == "." else inner, cast(Runs, runs)


def _from_index(paths: Sequence[Path], folder: Path, size: Size, reading: MaskReading) -> Iterator[tuple[str, Runs]]:
    """Class and mask of each number, in ascending order."""
    if len(paths) > 1:
        raise ValueError(f"{paths[0]} and {paths[1]} are both masks of picture {folder.name}: one of them is needed")
    for number, runs in _runs_of_numbers(paths[0], _values(paths[0], size, reading)):
        name = reading.class_name
        if reading.class_divisor is not None:
            name = reading.class_ids.get(number // reading.class_divisor, "")
        if number not in reading.background and name:
            yield name, runs


def _runs_of_numbers(path: Path, values: npt.NDArray[np.integer]) -> Iterator[tuple[int, Runs]]:
    """Each number of an index image with its run lengths, whose cost does not grow with how many numbers there are."""
    columns = values.T.reshape(-1)
    if np.count_nonzero(columns[1:] != columns[:-1]) >= MOST_RUNS:
        raise ValueError(f"{path} changes its number more than {MOST_RUNS:,} times: it is no index image")
    starts = np.concatenate(([0], np.flatnonzero(columns[1:] != columns[:-1]) + 1))
    stops, numbers = np.append(starts[1:], columns.size), columns[starts]
    order = np.argsort(numbers, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        bounds = np.stack([starts[rows], stops[rows]], axis=1).reshape(-1)
        counts = np.diff(bounds, prepend=0, append=columns.size)
        counts = counts if counts[-1] else counts[:-1]
        shape = [*values.shape]
        runs = coco_mask.frPyObjects({"size": shape, "counts": counts}, *shape)
        yield int(numbers[rows[0]]), cast(Runs, runs)


def _values(path: Path, size: Size, reading: MaskReading) -> npt.NDArray[np.integer]:
    """(height, width) numbers of a mask image: palette indices, grey values of 1, 8, 16 or 32 bits."""
    is_index = reading.layout == "index"
    with opened(path, reading.max_megapixels, "a mask") as image:
        if is_index and image.format in ("JPEG", "MPO", "WEBP"):
            raise ValueError(f"is a {image.format} file, which changes numbers: PNG or TIFF is needed")
        if getattr(image, "is_animated", False):
            raise ValueError("holds several pages: one image per file is needed")
        values = upright(image, partial(_numbers, is_index=is_index))
    if values.shape != size:
        raise ValueError(
            f"{path} is {values.shape[0]} px high and {values.shape[1]} px wide, its picture {size[0]} and {size[1]}"
        )
    return values


def _numbers(image: Image.Image, *, is_index: bool) -> npt.NDArray[np.integer]:
    if image.mode == "F":
        raise ValueError("its pixels are floats: whole numbers are needed")
    if image.mode == "1":
        return np.asarray(image.convert("L")) // (255 if is_index else 1)  # a threshold means the same as for 8 bits
    return np.asarray(image) if image.mode in ("P", "L") or image.mode[0] == "I" else _grey(image)


def _grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    """The one channel of a colour image whose channels are equal; alpha does not count."""
    pixels = np.asarray(image.convert("RGB"))
    if (pixels != pixels[:, :, :1]).any():
        raise ValueError(f"it has colours (mode {image.mode}): a grey or palette image is needed")
    return np.asarray(pixels[:, :, 0])


def _binary(path: Path, values: npt.NDArray[np.integer]) -> Mask:
    """Where the values are not 0, if they are but one."""
    low, high = values.min(), values.max()
    if low in (0, high) and not ((values != 0) & (values != high)).any():
        return values != 0
    found = np.unique(values)
    raise ValueError(
        f"{path} holds {len(found)} grey values, {found[:4].tolist()} …: a mask of one instance has 0 and another; "
        "for soft edges say threshold=128, for one index image per picture layout=index"
    )


def _entry(runs: Runs) -> dict[str, object]:
    """Annotation record of a mask, without ids."""
    return {
        "iscrowd": 0,
        "area": int(coco_mask.area(runs)),
        "bbox": coco_mask.toBbox(runs).tolist(),
        "segmentation": {"size": [*runs["size"]], "counts": runs["counts"].decode("ascii")},
    }
