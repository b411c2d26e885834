"""Our resize and flip against recordings of the original pipeline (OpenCV): tests/parity/golden/README.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from r3cnn.data.annotations import Objects
from r3cnn.data.transforms import resize_image, resized_size, transform_objects

GOLDEN = Path(__file__).parents[2] / "parity" / "golden"
CASES = json.loads((GOLDEN / "pipeline.json").read_text())["cases"]
ARRAYS = np.load(GOLDEN / "pipeline.npz")
MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)[:, None, None]
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)[:, None, None]


def inputs(name):
    """RGB image, boxes and masks by the recipe of the recording."""
    height, width = CASES[name]["in_hw"]
    random = np.random.RandomState(height * 1000 + width)
    cells = random.randint(0, 256, (-(-height // 8), -(-width // 8), 3)).astype(np.uint8)
    image = cells.repeat(8, 0).repeat(8, 1)[:height, :width, ::-1]
    boxes = np.array(CASES[name]["gt_in"], dtype=np.float32)
    y, x = np.mgrid[:height, :width] + 0.5
    masks = []
    for x1, y1, x2, y2 in boxes.astype(np.float64):
        distance = ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + ((y - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2
        masks.append(np.asfortranarray(distance <= 1, dtype=np.uint8))
    segments = tuple(coco_mask.encode(mask)["counts"] for mask in masks)
    return torch.from_numpy(image.copy()).permute(2, 0, 1), Objects(
        boxes, np.zeros(len(boxes), dtype=np.int64), segments
    )


def target(name):
    case = CASES[name]
    _, objects = inputs(name)
    old = tuple(case["in_hw"])
    return transform_objects(objects, old, resized_size(old, (120, 200)), flip=case["flip"])


@pytest.mark.parametrize("name", CASES)
def test_resized_sizes_equal_the_recorded_ones(name):
    assert list(resized_size(tuple(CASES[name]["in_hw"]), (120, 200))) == CASES[name]["img_shape"][:2]


@pytest.mark.parametrize("name", CASES)
def test_boxes_equal_the_recorded_ones_exactly(name):
    assert (target(name).boxes.numpy() == ARRAYS[f"{name}/gt_bboxes"]).all()


@pytest.mark.parametrize("name", CASES)
def test_masks_equal_the_recorded_ones_exactly(name):
    masks = target(name).masks
    recorded = np.unpackbits(ARRAYS[f"{name}/gt_masks_packed"], axis=2)
    assert list(masks.canvas) == CASES[name]["mask_canvas"]
    assert (masks.to_dense().numpy() == recorded).all()
    assert masks.pixels.numel() < recorded.size / 2


@pytest.mark.parametrize("name", CASES)
def test_pixels_differ_from_the_recorded_ones_by_one_grey_level_in_a_few_percent(name):
    case = CASES[name]
    image, _ = inputs(name)
    size = tuple(case["img_shape"][:2])
    resized = resize_image(image, size).numpy().astype(np.float32)
    resized = resized[:, :, ::-1] if case["flip"] else resized
    canvas = np.zeros((3, *case["pad_shape"][:2]), dtype=np.float32)
    canvas[:, : size[0], : size[1]] = (resized - MEAN) / STD
    sample = canvas.reshape(-1)[:: max(1, canvas.size // 2048)][:2048]

    grey_levels = np.abs(sample - ARRAYS[f"{name}/img_sample"]) * STD.max()

    assert grey_levels.max() < 1.03
    assert (grey_levels > 0.5).mean() < 0.03
