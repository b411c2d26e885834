from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from r3cnn.data.annotations import Objects
from r3cnn.data.transforms import flip_boxes, resize_boxes, resize_image, resized_size, transform_objects


def as_boxes(rows):
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


def objects(boxes, masks, crowds=()):
    segments = tuple(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"] for mask in masks)
    return Objects(as_boxes(boxes), np.arange(len(masks)), segments, as_boxes(crowds))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((300, 1000), (400, 1333)), ((1600, 1600), (800, 800))],
)
def test_the_paper_s_bounds_keep_the_aspect_ratio(size, expected):
    assert resized_size(size, (800, 1333)) == expected


def test_an_extreme_aspect_ratio_keeps_at_least_one_pixel():
    assert resized_size((1, 5000), (800, 1333)) == (1, 1333)


def test_boxes_are_scaled_by_width_and_height_separately_and_clipped():
    boxes = np.array([[10, 10, 20, 30], [90, 0, 101, 50]], dtype=np.float32)
    assert resize_boxes(boxes, (50, 100), (150, 200)).tolist() == [[20, 30, 40, 90], [180, 0, 200, 150]]


def test_a_flip_maps_x_to_width_minus_x():
    assert flip_boxes(np.array([[10, 1, 30, 2]], dtype=np.float32), 100).tolist() == [[70, 1, 90, 2]]


def test_pixels_are_interpolated_between_their_centres():
    image = torch.tensor([0, 100], dtype=torch.uint8).expand(3, 1, 2)
    assert resize_image(image, (1, 4))[0].tolist() == [[0, 25, 75, 100]]


def test_an_image_that_has_the_right_size_is_not_touched():
    image = torch.zeros(3, 4, 5, dtype=torch.uint8)
    assert resize_image(image, (4, 5)) is image


def test_mask_pixels_outside_the_box_are_not_lost():
    mask = np.zeros((40, 60))
    mask[5:30, 10:50] = 1
    target = transform_objects(objects([[20, 10, 25, 15]], [mask]), (40, 60), (40, 60), flip=False)
    assert (target.masks.to_dense()[0].numpy()[:40, :60] == mask).all()


def test_the_window_of_a_small_mask_is_its_box_with_a_margin():
    mask = np.zeros((40, 60))
    mask[12, 22] = 1
    target = transform_objects(objects([[20.5, 10.5, 25, 15]], [mask]), (40, 60), (40, 60), flip=False)
    assert target.masks.windows.tolist() == [[19, 9, 7, 7]]
    assert target.masks.pixels.sum() == 1


def test_a_mask_without_a_pixel_and_no_object_at_all_are_fine():
    target = transform_objects(objects([[2, 2, 9, 9]], [np.zeros((40, 60))]), (40, 60), (80, 120), flip=True)
    assert target.masks.pixels.sum() == 0
    assert len(target) == 1
    none = transform_objects(objects([], []), (40, 60), (80, 120), flip=True)
    assert len(none) == 0
    assert none.masks.canvas == (96, 128)


def test_boxes_below_one_pixel_after_resizing_are_dropped_with_label_and_mask():
    masks = [np.ones((100, 100)), np.ones((100, 100))]
    target = transform_objects(objects([[0, 0, 9, 50], [0, 0, 11, 50]], masks), (100, 100), (10, 10), flip=False)
    assert target.labels.tolist() == [1]
    assert len(target.masks) == 1


@given(
    old=st.tuples(st.integers(3, 50), st.integers(3, 50)),
    new=st.tuples(st.integers(3, 90), st.integers(3, 90)),
    flip=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_masks_equal_a_nearest_neighbour_resize_of_the_whole_image(old, new, flip, seed):
    random = np.random.default_rng(seed)
    masks = [random.random(old) < share for share in (0.02, 0.5)]
    target = transform_objects(objects([[0, 0, *old[::-1]], [0, 0, *old[::-1]]], masks), old, new, flip=flip)
    rows = np.minimum(np.floor(np.arange(new[0]) * (1 / (new[0] / old[0]))), old[0] - 1).astype(int)
    columns = np.minimum(np.floor(np.arange(new[1]) * (1 / (new[1] / old[1]))), old[1] - 1).astype(int)
    for mask, dense in zip(masks, target.masks.to_dense(), strict=True):
        expected = mask[rows][:, columns]
        expected = expected[:, ::-1] if flip else expected
        assert (dense[: new[0], : new[1]].numpy() == expected).all()
        assert dense.sum() == expected.sum()


@given(seed=st.integers(0, 1000), new=st.tuples(st.integers(20, 90), st.integers(20, 90)))
def test_flipping_twice_gives_the_boxes_back(seed, new):
    corners = np.sort(np.random.default_rng(seed).uniform(0, 20, (5, 2, 2)).astype(np.float32), axis=1)
    boxes = corners.reshape(5, 4)
    assert np.allclose(flip_boxes(flip_boxes(boxes, new[1]), new[1]), boxes, atol=1e-5)


@pytest.mark.parametrize(("flip", "expected"), [(False, [10, 8, 40, 20]), (True, [120, 8, 150, 20])])
def test_crowds_are_resized_and_mirrored_like_boxes(flip, expected):
    target = transform_objects(objects([], [], crowds=[[5, 4, 20, 10]]), (40, 80), (80, 160), flip=flip)
    assert target.crowds.tolist() == [expected]
