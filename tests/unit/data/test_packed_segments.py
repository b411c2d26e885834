from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from r3cnn.data.packed_segments import Polygons, pack_polygons

SIZE = (60, 80)
coordinates = st.one_of(
    st.floats(-80, 160, allow_subnormal=False).map(lambda value: round(value, 2)),
    st.integers(-80, 160).map(float),
    st.integers(-799, 1599).map(lambda tenths: tenths / 10),  # where fifths of a pixel begin and end
)
polygons = st.lists(coordinates, min_size=6, max_size=16).map(lambda numbers: numbers[: len(numbers) // 2 * 2])
objects = st.lists(st.lists(polygons, min_size=1, max_size=3), max_size=5)


def rasterised(parts):
    return coco_mask.merge(coco_mask.frPyObjects(parts, *SIZE))["counts"]


@given(objects, st.lists(st.binary(min_size=1, max_size=5), max_size=3))
def test_packed_polygons_are_rasterised_to_the_bit_as_pycocotools_rasterises_the_file(outlines, runs):
    everything = np.ones(len(outlines), dtype=bool)
    packed = pack_polygons([Polygons.of(outlines).chosen(everything)]).with_runs(runs)
    assert len(packed) == len(outlines) + len(runs)
    assert [packed.encoded(row, SIZE) for row in range(len(outlines))] == [rasterised(parts) for parts in outlines]
    assert [packed.encoded(len(outlines) + row, SIZE) for row in range(len(runs))] == runs


@given(st.lists(st.tuples(st.lists(polygons, max_size=3), st.booleans()), max_size=6))
def test_objects_that_are_not_chosen_leave_no_trace(choice):
    chosen = np.array([is_chosen and len(parts) > 0 for parts, is_chosen in choice], dtype=bool)
    some = Polygons.of([parts for parts, _ in choice]).chosen(chosen)
    packed = pack_polygons([some, some])
    expected = [rasterised(parts) for (parts, _), is_chosen in zip(choice, chosen, strict=True) if is_chosen]
    assert [packed.encoded(row, SIZE) for row in range(len(packed))] == expected * 2


def test_coordinates_of_ordinary_images_take_two_bytes_and_those_of_large_ones_four():
    triangle = [0.0, 0.0, 50.0, 0.0, 50.0, 50.0]
    for scale, kind in ((1.0, np.int16), (131.0, np.int16), (132.0, np.int32)):
        packed = pack_polygons([Polygons.of([[[value * scale for value in triangle]]]).chosen(np.ones(1, dtype=bool))])
        assert packed.points.dtype == kind
        assert packed.points.max() == 250 * scale
