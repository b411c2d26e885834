"""Hundreds of broken annotation files: each is read right or refused by name."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_records import CATEGORIES, annotation, image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from r3cnn.data import annotation_records, image_records
from r3cnn.data.annotations import Annotations, read_index
from r3cnn.data.checks import AnnotationError
from r3cnn.data.reading import read_annotations

CLASSES = ("dog", "cat")
RUNS = {"size": [60, 80], "counts": [100, 50, 4650]}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 100),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**400, 1.0, -0.0, 1e308, 1e-320, math.nan, math.inf, -math.inf]),
    st.floats(-200, 300, allow_nan=False),
    st.sampled_from(["", "1", "1.png", "../1.png", "/1.png", "a\0b", "\ud800", "x" * 5000, "C:1.png", "ä/ö.png"]),
    st.sampled_from([[], {}, [[]], [[1.0] * 6], [[1e9] * 6], [1, 2, 3, 4], [0, 0, 81, 61], [0, 0, 82, 1], RUNS]),
    st.sampled_from([{"size": [60, 80], "counts": text} for text in ("", "PPYo1", "~~~", "0" * 9, "ÿ")]),
    st.sampled_from([{"size": [60, 80], "counts": runs} for runs in ([4800], [2**40, -(2**40)], [1.5], [True], [])]),
    st.sampled_from([{"size": size, "counts": [4800]} for size in ([80, 60], "ab", None, [60], [60.0, 80.0])]),
)
FIELDS = {
    "images": ["id", "file_name", "height", "width"],
    "annotations": ["id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd"],
    "categories": ["id", "name"],
}
changes = st.lists(
    st.sampled_from([(part, field) for part, fields in FIELDS.items() for field in fields]).flatmap(
        lambda place: st.tuples(
            st.just(place[0]), st.integers(0, 3), st.just(place[1]), st.just("set") | st.just("delete"), VALUES
        )
    ),
    min_size=1,
    max_size=3,
)
MANY = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])


def sound() -> dict[str, Any]:
    crowd = annotation(4, iscrowd=1, segmentation=RUNS, bbox=[0, 0, 80, 60])
    objects = [annotation(1), annotation(2, image_id=2, category_id=3, bbox=[10, 20, 20, 20.5]), annotation(3), crowd]
    return {"images": [image(1), image(2)], "annotations": objects, "categories": copy.deepcopy(CATEGORIES)}


def changed(edits) -> dict[str, Any]:
    content = sound()
    for part, position, field, action, value in edits:
        record = content[part][position % len(content[part])]
        if action == "set":
            record[field] = value
        else:
            record.pop(field, None)
    return content


def outcome(file: Path) -> tuple[object, ...]:
    """Everything that comes of a file: its problems and all of its index, or the error."""
    try:
        index, problems = read_index(file, CLASSES, may_lack_classes=False, max_overhang=0.1)
    except AnnotationError as error:
        return ("refused", str(error))
    arrays = [index.image_ids, index.sizes, index.file_names, index.starts, index.boxes, index.labels, index.crowds]
    objects = [index.objects(i).segments for i in range(len(index))]
    return (problems.found, problems.rejected, objects, *(array.tolist() for array in arrays))


def read_or_reason(file: Path) -> Annotations | str:
    try:
        return read_annotations(file, CLASSES, "skip")
    except AnnotationError as error:
        return str(error)


def write(folder: Path, content: object) -> Path:
    file = folder / "broken.json"
    file.write_text(json.dumps(content))
    return file


@MANY
@given(changes)
def test_a_changed_file_is_read_right_or_refused_by_name(tmp_path, edits):
    file = write(tmp_path, changed(edits))
    index = read_or_reason(file)
    if isinstance(index, str):
        assert str(file) in index
        assert len(index) < 2000
        return
    assert (index.boxes[:, 2:] > index.boxes[:, :2]).all()
    assert set(index.labels.tolist()) <= {0, 1}
    for i in range(len(index)):
        height, width = index.size(i)
        found = index.objects(i)
        assert (found.boxes >= 0).all()
        assert (found.boxes <= [width, height, width, height]).all()
        for counts in found.segments:
            assert coco_mask.decode({"size": [height, width], "counts": counts}).shape == (height, width)


@MANY
@given(changes)
def test_what_is_certainly_sound_is_what_the_checks_of_single_records_let_pass(tmp_path, edits):
    """The quick way and the slow way, which has no shortcut, agree in everything: values, order, problems, errors."""
    file = write(tmp_path, changed(edits))
    quick = outcome(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotation_records, "decoded", lambda entries, decoder: None)
        patch.setattr(image_records, "decoded", lambda entries, decoder: None)
        slow = outcome(file)
    assert quick == slow


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_the_order_of_the_file_is_kept_whatever_fits_into_a_chunk(tmp_path, monkeypatch, chunk):
    content = sound()
    content["annotations"] += [annotation(9, segmentation=RUNS), annotation(2, bbox=[1, 1, 5, 5]), annotation(7)]
    file = write(tmp_path, content)
    whole = outcome(file)
    monkeypatch.setattr(annotation_records, "CHUNK", chunk)
    monkeypatch.setattr(image_records, "CHUNK", chunk)
    assert outcome(file) == whole
    assert whole[0] == ["annotation 2 has the id of another annotation: one of its own is needed"]


@MANY
@given(st.integers(0, 1200), st.binary(max_size=6), st.integers(0, 40))
def test_damaged_text_is_read_or_refused_by_name(tmp_path, position, inserted, removed):
    text = json.dumps(sound()).encode()
    file = tmp_path / "damaged.json"
    file.write_bytes(text[:position] + inserted + text[position + removed :])
    index = read_or_reason(file)
    if isinstance(index, str):
        assert str(file) in index
        return
    assert len(index) <= 3
    assert np.isfinite(index.boxes).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "is not valid JSON"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1' + "0" * 5000 + ', "name": "a"}]}', "JSON|digits"),
        (
            '{"images": [3], "annotations": [], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}',
            "no object",
        ),
        (
            '{"images": [], "annotations": [null], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}',
            "no object",
        ),
        ("", "is empty"),
    ],
)
def test_a_file_of_another_shape_is_refused_by_name(tmp_path, text, reason):
    file = tmp_path / "odd.json"
    file.write_text(text)
    with pytest.raises(AnnotationError, match=reason) as error:
        read_annotations(file, CLASSES)
    assert str(file) in str(error.value)


def test_a_folder_in_place_of_the_file_is_named(tmp_path):
    with pytest.raises(AnnotationError, match=f"{tmp_path}: cannot be read"):
        read_annotations(tmp_path, CLASSES)


def test_a_corner_astronomically_far_away_is_refused_before_it_fills_the_memory(tmp_path):
    content = sound()
    content["annotations"][0]["segmentation"] = [[0.0, 0.0, 1e9, 0.0, 10.0, 10.0]]
    with pytest.raises(
        AnnotationError, match=r"annotation 1 has polygon 0 of its segmentation reaching from 0\.0 to 1000000000\.0"
    ):
        read_annotations(write(tmp_path, content), CLASSES)
