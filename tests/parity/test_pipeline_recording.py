"""Our resize and flip against recordings of the original pipeline (OpenCV), and its learning rates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import load_config
from pycocotools import mask as coco_mask
from recordings import find_shared
from torch import Tensor

from r3cnn.data.annotations import Objects
from r3cnn.data.transforms import resize_image, resized_size, transform_objects
from r3cnn.structures import Target, canvas_of
from r3cnn.training.build import instantiate

MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)[:, None, None]
STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)[:, None, None]
SCHEDULES = {"1x": "mask_rcnn", "3x": "mask_rcnn_3x"}
STEPS_PER_EPOCH = 7330
CASE_KEYS = {"in_hw", "img_scale", "flip", "img_shape", "pad_shape", "scale_factor"} | {
    "img_mean",
    "img_dtype",
    "mask_canvas",
    "gt_in",
}
ARRAY_KEYS = {"img_sample", "gt_bboxes", "gt_mask_areas", "gt_masks_packed"}


@pytest.fixture(scope="module")
def cases(golden: Path) -> dict[str, dict]:
    return json.loads(find_shared(golden, "pipeline.json").read_text())["cases"]


@pytest.fixture(scope="module")
def arrays(golden: Path) -> dict[str, np.ndarray]:
    with np.load(find_shared(golden, "pipeline.npz")) as stored:
        return dict(stored)


def drawn(case: dict) -> tuple[Tensor, Objects]:
    """RGB image, boxes and masks by the recipe of the recording."""
    height, width = case["in_hw"]
    random = np.random.RandomState(height * 1000 + width)
    cells = random.randint(0, 256, (-(-height // 8), -(-width // 8), 3)).astype(np.uint8)
    image = cells.repeat(8, 0).repeat(8, 1)[:height, :width, ::-1]
    boxes = np.array(case["gt_in"], dtype=np.float32)
    y, x = np.mgrid[:height, :width] + 0.5
    segments = []
    for x1, y1, x2, y2 in boxes.astype(np.float64):
        distance = ((x - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2 + ((y - (y1 + y2) / 2) / ((y2 - y1) / 2)) ** 2
        segments.append(coco_mask.encode(np.asfortranarray(distance <= 1, dtype=np.uint8))["counts"])
    labels = np.zeros(len(boxes), dtype=np.int64)
    return torch.from_numpy(image.copy()).permute(2, 0, 1), Objects(boxes, labels, tuple(segments), boxes[:0])


def new_size(case: dict) -> tuple[int, int]:
    long, short = max(case["img_scale"]), min(case["img_scale"])
    return resized_size(tuple(case["in_hw"]), (short, long))


def transformed(case: dict) -> Target:
    return transform_objects(drawn(case)[1], tuple(case["in_hw"]), new_size(case), flip=case["flip"])


def test_everything_recorded_is_compared(cases: dict[str, dict], arrays: dict[str, np.ndarray]) -> None:
    assert {key for case in cases.values() for key in case} == CASE_KEYS
    assert arrays.keys() == {f"{name}/{key}" for name in cases for key in ARRAY_KEYS}


def test_sizes_and_scales_equal(cases: dict[str, dict]) -> None:
    for case in cases.values():
        (height, width), (old_height, old_width) = new_size(case), case["in_hw"]
        assert [height, width] == case["img_shape"][:2]
        assert list(canvas_of((height, width))) == case["pad_shape"][:2]
        assert case["scale_factor"] == pytest.approx([width / old_width, height / old_height] * 2)


def test_boxes_equal_exactly(cases: dict[str, dict], arrays: dict[str, np.ndarray]) -> None:
    for name, case in cases.items():
        assert (transformed(case).boxes.numpy() == arrays[f"{name}/gt_bboxes"]).all(), name


def test_masks_equal_exactly(cases: dict[str, dict], arrays: dict[str, np.ndarray]) -> None:
    for name, case in cases.items():
        masks, recorded = transformed(case).masks, np.unpackbits(arrays[f"{name}/gt_masks_packed"], axis=2)
        dense = masks.to_dense().numpy()
        assert list(masks.canvas) == case["mask_canvas"]
        assert (dense == recorded[:, :, : dense.shape[2]]).all(), name
        assert (dense.sum(axis=(1, 2)) == arrays[f"{name}/gt_mask_areas"]).all(), name
        assert masks.pixels.numel() < recorded.size / 2


def test_pixels_differ_by_one_grey_level_in_a_few_percent(
    cases: dict[str, dict], arrays: dict[str, np.ndarray]
) -> None:
    """OpenCV interpolates in 11 bits of fixed point, so a rounded value may differ by one."""
    for name, case in cases.items():
        size = tuple(case["img_shape"][:2])
        resized = resize_image(drawn(case)[0], size).numpy().astype(np.float32)
        resized = resized[:, :, ::-1] if case["flip"] else resized
        canvas = np.zeros((3, *case["pad_shape"][:2]), dtype=case["img_dtype"])
        canvas[:, : size[0], : size[1]] = (resized - MEAN) / STD
        sample = canvas.reshape(-1)[:: max(1, canvas.size // 2048)][:2048]
        grey_levels = np.abs(sample - arrays[f"{name}/img_sample"]) * STD.max()
        assert grey_levels.max() < 1.03, name
        assert (grey_levels > 0.5).mean() < 0.03, name
        assert canvas.mean() == pytest.approx(case["img_mean"], abs=0.03 / float(STD.min())), name


def test_learning_rates_equal_those_of_the_original_hooks(golden: Path) -> None:
    for name, recorded in json.loads(find_shared(golden, "lr_schedule.json").read_text()).items():
        config = load_config(SCHEDULES[name])
        total = config["trainer"]["max_epochs"] * STEPS_PER_EPOCH
        at = instantiate(config["lr_schedule"]).multiplier(STEPS_PER_EPOCH, total)
        for place, rate in recorded.items():
            epoch, iteration = (int(part.lstrip("epochit_r")) for part in place.split("_"))
            found = config["optimizer"]["lr"] * at(epoch * STEPS_PER_EPOCH + iteration)
            assert found == pytest.approx(rate, rel=1e-9), f"{name} {place}"
