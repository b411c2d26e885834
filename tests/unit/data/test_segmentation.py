from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from r3cnn.data.segmentation import decode, encode

masks = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda size: arrays(np.uint8, size, elements=st.integers(0, 1))
)


def paste(crop, size):
    mask = np.zeros(size, dtype=np.uint8)
    if crop is not None:
        mask[:, crop.x : crop.x + len(crop.columns)] = crop.columns.T
    return mask


@given(masks)
def test_decoding_is_what_pycocotools_decodes(mask):
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"]
    crop = decode(counts, mask.shape)
    assert (paste(crop, mask.shape) == mask).all()
    assert (crop is None) == (not mask.any())


@given(masks)
def test_the_rows_of_a_crop_hold_the_mask(mask):
    crop = decode(coco_mask.encode(np.asfortranarray(mask))["counts"], mask.shape)
    if crop is not None:
        first, stop = crop.rows
        assert crop.columns[:, first:stop].sum() == mask.sum()


@given(masks)
def test_compressed_run_lengths_are_kept_as_they_are(mask):
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"]
    assert encode({"size": list(mask.shape), "counts": counts.decode()}, mask.shape) == (counts, [])


def test_long_runs_of_several_digits_are_decoded():
    mask = np.zeros((700, 900), dtype=np.uint8)
    mask[100:600, 300:800] = 1
    crop = decode(coco_mask.encode(np.asfortranarray(mask))["counts"], mask.shape)
    assert (crop.x, crop.rows, crop.columns.shape) == (300, (100, 600), (500, 700))
    assert (paste(crop, mask.shape) == mask).all()


def test_parts_of_an_object_in_several_polygons_are_united():
    parts = [[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0], [5.0, 5.0, 8.0, 5.0, 8.0, 8.0, 5.0, 8.0]]
    mask = paste(decode(encode(parts, (10, 10))[0], (10, 10)), (10, 10))
    assert mask.sum() == 4 + 9
    assert mask[:2, :2].all()
    assert mask[5:8, 5:8].all()


@pytest.mark.parametrize("counts", ["", "`", "oooooooo0"])
def test_broken_compressed_run_lengths_are_refused(counts):
    (reason,) = encode({"size": [4, 4], "counts": counts}, (4, 4))[1]
    assert "compressed run lengths" in reason


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("sliver", [[], [1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
def test_a_part_without_area_is_dropped_from_its_object_and_changes_no_pixel(sliver, place):
    parts = [[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0], [5.0, 5.0, 8.0, 5.0, 8.0, 8.0, 5.0, 8.0]]
    whole = encode(parts, (10, 10))[0]
    assert encode([*parts[:place], sliver, *parts[place:]], (10, 10)) == (whole, [])
