"""What annotation tools write is read as it was drawn: two scenes as LVIS, CVAT, Label Studio, Roboflow and labelme."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from r3cnn.cli.parts import build_metric
from r3cnn.data.annotations import classes_of
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.data.inspection import inspect
from r3cnn.data.scenes import CLASSES, Scene, draw_scene
from r3cnn.data.split import Split
from r3cnn.structures import Detections

Content = dict[str, Any]
Runs = dict[str, Any]
SCENES = [draw_scene(np.random.default_rng(seed), count=5, has_crowd=False) for seed in (0, 1)]


def polygon_of(scene: Scene, number: int) -> list[float]:
    return list(map(float, scene.shapes[number].polygon.round(2).reshape(-1)))


def runs_of(scene: Scene, number: int) -> Runs:
    return coco_mask.merge(coco_mask.frPyObjects([polygon_of(scene, number)], *scene.pixels.shape[:2]))


def content_of(first_image: int, first_annotation: int, first_category: int, **fields: Any) -> Content:
    """What all tools agree on: images without a name, polygons, boxes around them; more fields of annotations."""
    images, annotations = [], []
    for image_id, scene in enumerate(SCENES, start=first_image):
        images.append({"id": image_id, "height": scene.pixels.shape[0], "width": scene.pixels.shape[1]})
        for number, shape in enumerate(scene.shapes):
            runs = runs_of(scene, number)
            record = {
                "id": first_annotation + len(annotations),
                "image_id": image_id,
                "area": float(coco_mask.area(runs)),
            }
            record |= {"category_id": first_category + shape.label, "bbox": coco_mask.toBbox(runs).tolist()}
            annotations.append({**record, "segmentation": [polygon_of(scene, number)], **fields})
    categories = [{"id": first_category + label, "name": name} for label, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def named(content: Content, *names: str, **fields: Any) -> Content:
    images = [{**one, "file_name": name, **fields} for one, name in zip(content["images"], names, strict=True)]
    return {**content, "images": images}


def lvis() -> Content:
    """``coco_url`` instead of ``file_name``, no ``iscrowd``, and hundreds of classes, here one, that no image has."""
    content = content_of(397133, 1, 1)
    for image, name in zip(content["images"], ("a.png", "b.png"), strict=True):
        image |= {"coco_url": f"http://images.cocodataset.org/images/{name}", "license": 3, "date_captured": "2013"}
        image |= {"neg_category_ids": [4], "not_exhaustive_category_ids": [1], "flickr_url": ""}
    for category in content["categories"]:
        category |= {
            "synset": f"{category['name']}.n.01",
            "frequency": "f",
            "image_count": 2,
            "synonyms": [],
            "def": "",
        }
    content["categories"].append({"id": 4, "name": "zebra", "synset": "zebra.n.01", "frequency": "r"})
    return content


def cvat() -> Content:
    """Attributes, empty texts, zeros for dates, and run lengths with plain counts for what was drawn with a brush."""
    content = content_of(1, 1, 1, iscrowd=0, attributes={"occluded": False, "rotation": 0.0})
    content = named(content, "a.png", "b.png", license=0, flickr_url="", coco_url="", date_captured=0)
    runs = runs_of(SCENES[0], 0)
    flat = coco_mask.decode(runs).reshape(-1, order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    counts = np.diff(edges, prepend=0, append=flat.size).tolist()
    content["annotations"][0]["segmentation"] = {"size": runs["size"], "counts": counts}
    for category in content["categories"]:
        category["supercategory"] = ""
    return {"licenses": [{"name": "", "id": 0, "url": ""}], "info": {"year": ""}, **content}


def label_studio() -> Content:
    """All ids from 0 on, ``ignore``, and paths from another folder or with the separators of another system."""
    return named(content_of(0, 0, 0, iscrowd=0, ignore=0), "../images/a.png", "images\\b.png")


def roboflow() -> Content:
    """A root class that no annotation has, ``extra``, images from 0 on, and whole numbers for boxes."""
    content = named(content_of(0, 0, 1, iscrowd=0), "a.png", "b.png", license=1, extra={"name": "IMG 1.png"})
    for record in content["annotations"]:
        record["bbox"] = [round(side) for side in record["bbox"]]
    categories = [{**one, "supercategory": "shapes"} for one in content["categories"]]
    return {**content, "categories": [{"id": 0, "name": "shapes", "supercategory": "none"}, *categories]}


def labelme() -> Content:
    """Categories from 0 on, boxes a little over the border, an ``area`` of 0, and lines among the polygons."""
    content = named(content_of(1, 1, 0, iscrowd=0), "a.png", "b.png")
    first, second = content["annotations"][:2]
    first["segmentation"].append([1.5, 2.5, 30.25, 40.0])
    height, width = SCENES[0].pixels.shape[:2]
    first["bbox"] = [-2.5, -2.5, width + 5.0, height + 5.0]
    second["area"] = 0
    return content


@pytest.mark.parametrize("export", [lvis, cvat, label_studio, roboflow, labelme])
def test_an_export_is_checked_trained_on_and_evaluated_as_it_was_drawn(
    tmp_path: Path, export: Callable[[], Content]
) -> None:
    (tmp_path / "images").mkdir()
    for name, scene in zip(("a.png", "b.png"), SCENES, strict=True):
        Image.fromarray(scene.pixels).save(tmp_path / "images" / name)
    file = tmp_path / "export.json"
    file.write_text(json.dumps(export()))
    classes = tuple(name for name in classes_of(file) if name != "zebra")
    assert classes == CLASSES
    split = Split(tmp_path / "images", file)
    found = inspect(split, classes, is_training=True, max_overhang=0.1, workers=0)
    assert found.problems == ()
    assert not [note for note in found.notes if "left out" in note or "image record" in note]
    data = CocoDataModule(
        root=tmp_path,
        train=split,
        val=split,
        classes=classes,
        batch_size=2,
        eval_batch_size=2,
        image_size=[100, 160],
        workers=0,
        seed=0,
        flip=0.0,
        on_bad_annotation="error",
        mean=[0.0, 0.0, 0.0],
        std=[1.0, 1.0, 1.0],
    )
    data.setup("fit")
    for index, scene in enumerate(SCENES):
        objects = data.train_set.annotations.objects(index)
        assert objects.labels.tolist() == [shape.label for shape in scene.shapes]
        assert objects.segments == tuple(runs_of(scene, number)["counts"] for number in range(len(scene.shapes)))
    drawn = sum(len(scene.shapes) for scene in SCENES)
    assert sum(len(target) for batch in data.train_dataloader() for target in batch.targets) == drawn
    metric = build_metric({}, data)
    for batch in data.val_dataloader():
        metric.update(batch, [[no_detection() for _ in batch.image_ids]])
    metrics = metric.compute().metrics
    assert metrics["mask"]["ap"] == 0
    assert metrics["images"] == {"seen": 2, "total": 2}


def no_detection() -> Detections:
    return Detections(
        boxes=torch.zeros(0, 4),
        scores=torch.zeros(0),
        labels=torch.zeros(0, dtype=torch.int64),
        masks=torch.zeros(0, 28, 28),
        mask_scores=torch.zeros(0),
        has_mask_scores=False,
    )


def test_roboflows_root_is_no_class_however_its_letters_are_composed(tmp_path: Path) -> None:
    file, content = tmp_path / "export.json", json.dumps(roboflow())
    for root in ("form\u0065\u0301", "form\u00e9"):
        file.write_text(content.replace("shapes", root), encoding="utf-8")
        assert classes_of(file) == CLASSES
