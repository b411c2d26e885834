from __future__ import annotations

import json

import numpy as np
import pytest
from coco_records import annotation, image

from r3cnn.data.reading import read_annotations
from r3cnn.data.statistics import statistics_of


def box(number, x, y, width, height, **changes):
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return annotation(number, bbox=[x, y, width, height], segmentation=[[float(c) for c in corners]], **changes)


@pytest.fixture
def found(write_coco):
    big = image(2, height=200, width=400)
    annotations = [
        box(1, 0, 0, 10, 40),
        box(2, 0, 0, 40, 40, category_id=3),
        box(3, 0, 0, 200, 100, image_id=2),
        box(4, 0, 0, 20, 20, image_id=2, iscrowd=1),
    ]
    file = write_coco([image(1), big, image(3)], annotations)
    return statistics_of(read_annotations(file, ("cat", "dog")), ("cat", "dog"), (120, 160))


def test_images_objects_and_crowds_are_counted(found):
    counts = {key: found[key] for key in ("images", "images_without_objects", "objects", "crowds")}
    assert counts == {"images": 3, "images_without_objects": 1, "objects": 3, "crowds": 1}
    assert found["per_class"] == {"cat": {"objects": 1, "images": 1}, "dog": {"objects": 2, "images": 2}}
    assert found["area_share"] == pytest.approx({"small": 1 / 3, "medium": 1 / 3, "large": 1 / 3})


def test_quantiles_are_of_what_they_say(found):
    quantity = found["quantity"]
    assert (quantity["image_width"]["min"], quantity["image_width"]["max"]) == (80, 400)
    assert quantity["image_aspect"]["median"] == pytest.approx(80 / 60)
    assert quantity["object_aspect"]["min"] == pytest.approx(0.25)
    assert quantity["object_aspect"]["max"] == 2
    assert quantity["object_side"]["median"] == pytest.approx(40)
    assert quantity["objects_per_image"]["mean"] == 1


def test_sides_at_the_network_s_input_are_scaled_as_the_image_is(found):
    # 60x80 becomes 120x160, 200x400 becomes 80x160
    sides = found["quantity"]["network_side"]
    assert sides["min"] == pytest.approx(2 * 20)
    assert sides["median"] == pytest.approx(0.4 * np.sqrt(20000))
    assert sides["max"] == pytest.approx(2 * 40)


def test_every_value_is_in_a_bin(found):
    for name, summary in found["quantity"].items():
        expected = 3  # images as well as objects
        assert sum(summary["histogram"]["counts"]) == expected, name
        assert len(summary["histogram"]["edges"]) == len(summary["histogram"]["counts"]) + 1


def test_without_objects_the_numbers_are_missing_and_the_content_is_still_json(write_coco):
    file = write_coco([image(1)], [])
    empty = statistics_of(read_annotations(file, ("cat", "dog")), ("cat", "dog"), (120, 160))
    assert empty["quantity"]["object_side"]["median"] is None
    assert empty["objects"] == 0
    assert json.loads(json.dumps(empty, allow_nan=False)) == empty
