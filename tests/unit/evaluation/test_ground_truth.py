import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_samples import annotation, rectangle, write_coco
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from r3cnn.evaluation.ground_truth import load_ground_truth

BOX = (10.0, 10.0, 20.0, 30.0)


def rewrite(path: Path, **fields: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return path


def test_missing_optional_fields_are_filled_from_the_mask(tmp_path: Path) -> None:
    bare = {"id": 4, "image_id": 1, "category_id": 3, "segmentation": rectangle(BOX)}
    instance = load_ground_truth(write_coco(tmp_path, [bare])).annotations[0]
    assert instance["bbox"] == [*BOX]
    assert instance["area"] == 600.0
    assert instance["iscrowd"] == 0


def test_the_area_of_the_file_is_kept(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(4, 1, 3, BOX, area=123.5, iscrowd=1)])
    instance = load_ground_truth(path).annotations[0]
    assert (instance["area"], instance["iscrowd"]) == (123.5, 1)


def test_polygons_and_both_kinds_of_run_lengths_give_the_same_mask(tmp_path: Path) -> None:
    pixels = np.zeros((100, 120), dtype=np.uint8, order="F")
    pixels[10:40, 10:30] = 1
    compressed = coco_mask.encode(pixels)
    text = {"size": [100, 120], "counts": compressed["counts"].decode()}
    edges = np.flatnonzero(np.diff(pixels.ravel(order="F"), prepend=0, append=0))
    counts = np.diff(edges, prepend=0, append=pixels.size).tolist()
    plain = {"size": [100, 120], "counts": counts}
    kinds = [rectangle(BOX), text, plain]
    rows = [annotation(number, 1, 3, BOX, segmentation=kind) for number, kind in enumerate(kinds, start=1)]
    truth = load_ground_truth(write_coco(tmp_path, rows))
    assert [one["segmentation"]["counts"] for one in truth.annotations] == [compressed["counts"]] * 3


def test_masks_are_those_of_pycocotools(shapes_root: Path) -> None:
    path = next((shapes_root / "annotations").glob("*val*.json"))
    truth, coco = load_ground_truth(path), COCO(str(path))
    assert len(truth.annotations) == len(coco.anns) > 0
    for instance in truth.annotations:
        expected = coco.annToMask(coco.anns[instance["id"]])
        assert np.array_equal(coco_mask.decode(instance["segmentation"]), expected)


def test_an_annotation_without_mask_is_named(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [{"id": 4, "image_id": 1, "category_id": 3, "bbox": [*BOX]}])
    with pytest.raises(ValueError, match="annotation 4 has segmentation None"):
        load_ground_truth(path)


def test_an_annotation_of_an_unknown_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="annotation 4 belongs to image_id 6"):
        load_ground_truth(write_coco(tmp_path, [annotation(4, 6, 3, BOX)]))


def test_a_file_without_images_is_no_coco_file(tmp_path: Path) -> None:
    path = rewrite(write_coco(tmp_path, []), images=None)
    with pytest.raises(ValueError, match="has no list 'images'"):
        load_ground_truth(path)


def test_an_image_without_size_is_refused(tmp_path: Path) -> None:
    path = rewrite(write_coco(tmp_path, []), images=[{"id": 1, "file_name": "1.png", "width": 9}])
    with pytest.raises(ValueError, match="has height None"):
        load_ground_truth(path)
