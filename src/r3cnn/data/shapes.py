"""The embedded data set: textured circles, squares and triangles that hide one another, in COCO format.

Only the outline tells the classes apart; colour and texture are drawn at random. Hidden objects are annotated with
what is visible of them, as people annotate photographs.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from r3cnn.data.scenes import CLASSES, Scene, draw_scene

VERSION = 1
"""Goes up with every change of the pictures, so that an old cache is noticed."""

EMPTY_EVERY = 20
CROWD_EVERY = 20
DAY = 86_400.0  # seconds; nobody draws for that long


@dataclass(frozen=True)
class _Recipe:
    version: int
    train: int
    val: int
    seed: int


def write_shapes(folder: str | Path, *, train: int, val: int, seed: int) -> None:
    """Writes ``{train,val}/*.png`` and ``annotations/instances_{train,val}.json``, unless they are there already.

    The folder appears complete or not at all, so several processes may call this at once.

    Args:
        folder: Folder of this data set alone; made with its parents.
        train: Number of training images.
        val: Number of validation images.
        seed: Seed >= 0; the same one gives the same files, to the byte.

    Raises:
        ValueError: If the folder holds anything else than these shapes, or a number is out of range.
    """
    if min(train, val) < 3 or seed < 0:
        raise ValueError(f"train is {train}, val is {val}, seed is {seed}: at least 3 images each and a seed >= 0")
    target = Path(folder).expanduser()
    recipe = _Recipe(VERSION, train, val, seed)
    if target.exists():
        _check_recipe(target, recipe)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}-*"):
        if time.time() - left.stat().st_mtime > DAY:  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for stream, (split, count) in enumerate((("train", train), ("val", val))):
            _write_split(draft, split, count, (seed, stream))
        (draft / "recipe.json").write_text(json.dumps(asdict(recipe)))
        draft.chmod(0o755)
        _publish(draft, target, recipe)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish(draft: Path, target: Path, recipe: _Recipe) -> None:
    try:
        os.rename(draft, target)
    except OSError:  # another process was first
        _check_recipe(target, recipe)


def _check_recipe(folder: Path, recipe: _Recipe) -> None:
    file = folder / "recipe.json"
    found = json.loads(file.read_text()) if file.is_file() else "no recipe.json"
    if found != asdict(recipe):
        raise ValueError(f"{folder} holds {found}, wanted {asdict(recipe)}: remove it, or choose another folder")


def _write_split(folder: Path, split: str, count: int, seed: tuple[int, int]) -> None:
    (folder / split).mkdir()
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for image_id in range(1, count + 1):
        random = np.random.default_rng((*seed, image_id))
        is_empty, has_crowd = image_id % EMPTY_EVERY == 2, image_id % CROWD_EVERY == 3
        scene = draw_scene(random, count=0 if is_empty else int(random.integers(2, 9)), has_crowd=has_crowd)
        name = f"{image_id:05d}.png"
        Image.fromarray(scene.pixels).save(folder / split / name, compress_level=1)
        height, width = scene.pixels.shape[:2]
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for entry in _entries(scene):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **entry})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def _entries(scene: Scene) -> list[dict[str, object]]:
    """Annotation records without ids: polygons for what is fully visible, run lengths for the rest."""
    entries: list[dict[str, object]] = []
    for number, shape in enumerate(scene.shapes):
        visible = scene.owner == number
        hidden = 1.0 - float(visible.sum()) / float(shape.mask.sum())
        segmentation = _compressed(visible) if hidden > 0 else [shape.polygon.round(3).reshape(-1).tolist()]
        entries.append({**_entry(visible, shape.label), "segmentation": segmentation, "hidden": round(hidden, 4)})
    if scene.crowd.any():
        entry = {**_entry(scene.crowd, 0), "iscrowd": 1, "hidden": 0.0}
        entries.append({**entry, "segmentation": _uncompressed(scene.crowd)})
    return entries


def _entry(mask: np.ndarray, label: int) -> dict[str, object]:
    box = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))).tolist()
    return {"category_id": label + 1, "bbox": box, "area": int(mask.sum()), "iscrowd": 0}


def _compressed(mask: np.ndarray) -> dict[str, object]:
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode("ascii")}


def _uncompressed(mask: np.ndarray) -> dict[str, object]:
    flat = np.concatenate(([False], mask.reshape(-1, order="F")))  # the first run counts zeros
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return {"size": list(mask.shape), "counts": np.diff([0, *changes, mask.size]).tolist()}
