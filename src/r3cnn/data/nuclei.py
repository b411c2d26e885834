"""Brings BBBC038v1 (nuclei, 2018 Data Science Bowl, CC0) into COCO format.

``python -P -m r3cnn.data.nuclei stage1_train $R3CNN_DATA/nuclei``, with the unpacked ``stage1_train.zip`` of
https://bbbc.broadinstitute.org/BBBC038: one folder per image with ``images/*.png`` and one mask per nucleus in
``masks/*.png``.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from r3cnn.data.loading import is_image_file, opened, read_image
from r3cnn.disk import whole_file
from r3cnn.structures import Size


def convert_nuclei(source: Path, target: Path, *, val_fraction: float = 0.2) -> None:
    """Writes ``images/*.png`` and ``annotations/instances_{train,val}.json`` below ``target``.

    An image belongs to the validation set by a checksum of its name, so adding images moves none.

    Args:
        source: Folder with one folder per image.
        target: Folder to write to.
        val_fraction: Share of the images to evaluate on, in (0, 1).

    Raises:
        ValueError: If there is no image, or a mask is not of its image's size.
    """
    folders = sorted(path.parent for path in source.glob("*/images"))
    if not folders or not 0 < val_fraction < 1:
        raise ValueError(f"{source} holds {len(folders)} folders ID/images, val_fraction is {val_fraction}")
    for folder in (target / "images", target / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    is_val = [zlib.crc32(folder.name.encode()) / 2**32 < val_fraction for folder in folders]
    for split, wanted in (("train", False), ("val", True)):
        numbered = [(i + 1, folder) for i, folder in enumerate(folders) if is_val[i] is wanted]
        content = _convert(numbered, target / "images")
        with whole_file(target / "annotations" / f"instances_{split}.json") as draft:
            draft.write_text(json.dumps(content))


def _convert(folders: Sequence[tuple[int, Path]], images_folder: Path) -> dict[str, list[dict[str, object]]]:
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for image_id, folder in folders:
        pixels = read_image(_only_image(folder)).permute(1, 2, 0).numpy()
        name = f"{folder.name}.png"
        Image.fromarray(pixels).save(images_folder / name)
        size = (pixels.shape[0], pixels.shape[1])
        images.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
        for file in sorted(filter(is_image_file, (folder / "masks").glob("*.png"))):
            entry = _entry(file, size)
            if entry is not None:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, **entry})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nucleus"}]}


def _only_image(folder: Path) -> Path:
    files = sorted(filter(is_image_file, (folder / "images").glob("*.png")))
    if len(files) != 1:
        raise ValueError(f"{folder / 'images'} holds {len(files)} PNG files: one is needed")
    return files[0]


def _entry(file: Path, size: Size) -> dict[str, object] | None:
    """Annotation record without ids; None for a mask without a pixel."""
    with opened(file, kind="a mask") as image:
        mask = np.asarray(image.convert("L")) > 0
    if mask.shape != size:
        raise ValueError(f"{file} is {mask.shape[0]} px high and {mask.shape[1]} px wide, its image {size}")
    if not mask.any():
        return None
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    segmentation = {"size": list(size), "counts": runs["counts"].decode("ascii")}
    box = coco_mask.toBbox(runs).tolist()
    return {"category_id": 1, "iscrowd": 0, "area": int(mask.sum()), "bbox": box, "segmentation": segmentation}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="BBBC038v1 (stage1_train) to COCO format")
    parser.add_argument("source", type=Path, help="folder with one folder per image")
    parser.add_argument("target", type=Path, help="folder to write images/ and annotations/ to")
    parser.add_argument("--val-fraction", type=float, default=0.2)
    given = parser.parse_args(arguments)
    convert_nuclei(given.source, given.target, val_fraction=given.val_fraction)


if __name__ == "__main__":
    main()
