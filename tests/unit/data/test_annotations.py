from __future__ import annotations

import gc
import logging
import math
from itertools import combinations

import numpy as np
import pytest
from coco_records import SQUARE, annotation, image
from pycocotools import mask as coco_mask

from r3cnn.data.annotations import classes_of, read_index
from r3cnn.data.checks import AnnotationError
from r3cnn.data.reading import read_annotations

CLASSES = ("dog", "cat")


def rle(mask, compressed=True):
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    if compressed:
        return {"size": runs["size"], "counts": runs["counts"].decode()}
    flat = mask.reshape(-1, order="F")
    changes = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": counts if flat[0] == 0 else [0, *counts]}


def test_boxes_become_corners_and_category_ids_with_holes_become_the_labels_of_the_classes(write_coco):
    file = write_coco([image(5), image(2)], [annotation(1, image_id=2), annotation(2, image_id=5, category_id=3)])

    read = read_annotations(file, CLASSES)

    assert read.image_ids.tolist() == [5, 2]
    assert read.category_ids == (7, 3)
    assert read.objects(0).labels.tolist() == [1]
    assert read.objects(1).labels.tolist() == [0]
    assert read.objects(1).boxes.tolist() == [[10, 20, 30, 40]]
    assert read.size(0) == (60, 80)


def test_polygons_and_both_kinds_of_run_lengths_are_the_same_mask(write_coco):
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:40, 10:30] = True
    forms = [SQUARE, rle(mask), rle(mask, compressed=False)]
    file = write_coco([image()], [annotation(i, segmentation=form) for i, form in enumerate(forms)])

    segments = read_annotations(file, CLASSES).objects(0).segments

    assert len(set(segments)) == 1
    assert (coco_mask.decode({"size": [60, 80], "counts": segments[0]}) == mask).all()


def test_a_crowd_is_no_object_to_learn_from(write_coco):
    mask = np.ones((60, 80), dtype=bool)
    crowd = annotation(2, iscrowd=1, segmentation=rle(mask, compressed=False), bbox=[0, 0, 80, 60])
    read = read_annotations(write_coco([image(1), image(2)], [annotation(1), crowd]), CLASSES)
    assert [len(read.objects(i).labels) for i in range(2)] == [1, 0]
    assert [read.objects(i).crowds.tolist() for i in range(2)] == [[[0, 0, 80, 60]], []]


def test_objects_below_one_pixel_or_without_area_are_too_small_to_learn_from(write_coco):
    small = [annotation(2, bbox=[10, 20, 0.9, 20]), annotation(3, area=0)]
    read = read_annotations(write_coco([image()], [annotation(1), *small]), CLASSES)
    assert len(read.labels) == 1
    assert len(read.rejected) == 0


def test_a_box_that_hangs_over_by_up_to_one_pixel_is_clipped(write_coco):
    file = write_coco([image()], [annotation(bbox=[-1.0, 20.0, 82.0, 40.5])])
    assert read_annotations(file, CLASSES).boxes.tolist() == [[0, 20, 80, 60]]


def test_a_file_without_annotations_is_read(write_coco):
    read = read_annotations(write_coco([image(1), image(2)], []), CLASSES)
    assert len(read) == 2
    assert read.objects(1).boxes.shape == (0, 4)


BAD = {
    "unknown category_id 5: one of the file's, [3, 7]": {"category_id": 5},
    "belongs to image_id 9": {"image_id": 9},
    "finite numbers": {"bbox": [10.0, math.nan, 20.0, 20.0]},
    "of zero area: width and height above 0": {"bbox": [10.0, 20.0, 0.0, 20.0]},
    "outside its image": {"bbox": [10.0, 20.0, 71.5, 20.0]},
    "[x, y, width, height] is needed": {"bbox": [10.0, 20.0, 20.0]},
    "2 points in polygon 0 of its segmentation: at least 3": {"segmentation": [[1.0, 2.0, 3.0, 4.0]]},
    "7 numbers in polygon 0": {"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]},
    "inf in polygon 0 of its segmentation, which is no finite number": {
        "segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, math.inf]]
    },
    "None in polygon 0 of its segmentation, which is no finite number": {
        "segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, None]]
    },
    "no list of polygons: entry 0 is 10.0, a list": {"segmentation": SQUARE[0]},
    "segmentation []: a list of polygons or run lengths": {"segmentation": []},
    "of size [80, 60]": {"segmentation": rle(np.ones((80, 60), dtype=bool))},
    "sum to 4799 pixels": {"segmentation": {"size": [60, 80], "counts": [4000, 799]}},
    "sum to 400 pixels": {"segmentation": {"size": [60, 80], "counts": rle(np.ones((20, 20), dtype=bool))["counts"]}},
    "-1 in the counts of its run lengths (RLE): integers >= 0": {
        "segmentation": {"size": [60, 80], "counts": [4801, -1]}
    },
    "none of its code": {"segmentation": {"size": [60, 80], "counts": "~~~"}},
    "run lengths (RLE) with counts None": {"segmentation": {"size": [60, 80]}},
    "the id of another annotation": {"id": 1},
    "has area 'large'": {"area": "large"},
    "has area -3": {"area": -3},
    "has area nan": {"area": math.nan},
    "has iscrowd 'no'": {"iscrowd": "no"},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_annotation_is_named_with_file_and_id(write_coco, reason):
    bad = annotation(2) | BAD[reason]
    file = write_coco([image()], [annotation(1), bad])
    with pytest.raises(AnnotationError) as error:
        read_annotations(file, CLASSES)
    assert f"{file}: annotation {bad['id']} " in str(error.value)
    assert reason in str(error.value)


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_annotation_is_left_out_counted_and_logged_on_request(write_coco, caplog, reason):
    file = write_coco([image()], [annotation(1), annotation(2) | BAD[reason]])
    with caplog.at_level(logging.WARNING):
        read = read_annotations(file, CLASSES, on_bad_annotation="skip")
    assert len(read.labels) == 1
    assert (read.rejected.images, read.rejected.annotations) == ((), (1,))
    assert f"{file}: left out 1 bad records" in caplog.text
    assert reason in caplog.text


BAD_IMAGES = {
    "leaves the image folder": {"file_name": "../secret.png"},
    "'/etc/secret.png', which leaves": {"file_name": "/etc/secret.png"},
    "'C:secret.png', which leaves": {"file_name": "C:secret.png"},
    "'a\\\\..\\\\..\\\\b.png', which leaves": {"file_name": "a\\..\\..\\b.png"},
    "a path below the image folder is needed": {"file_name": ""},
    "has height 0": {"height": 0},
    "has width '80'": {"width": "80"},
    "has the id of another image": {"id": 1, "file_name": "other.png"},
    "has id 'two'": {"id": "two"},
}


@pytest.mark.parametrize("reason", BAD_IMAGES)
def test_a_bad_image_record_is_named_or_left_out_on_request(write_coco, reason):
    file = write_coco([image(1), image(2) | BAD_IMAGES[reason]], [annotation(1)])
    with pytest.raises(AnnotationError) as error:
        read_annotations(file, CLASSES)
    assert str(error.value).startswith(f"{file}: image ")
    assert reason in str(error.value)
    read = read_annotations(file, CLASSES, on_bad_annotation="skip")
    assert read.image_ids.tolist() == [1]
    assert (read.rejected.images, read.rejected.annotations) == ((1,), ())


def test_the_error_tells_the_first_problem_and_how_many_more_there_are(write_coco):
    file = write_coco([image()], [annotation(i, category_id=9) for i in (4, 5, 6)])
    with pytest.raises(AnnotationError, match=r"annotation 4 has unknown category_id 9.* \(and 2 more bad records\)"):
        read_annotations(file, CLASSES)


def test_categories_that_are_not_the_classes_are_refused_by_name(write_coco):
    file = write_coco([image()], [])
    with pytest.raises(AnnotationError, match=r"missing in the file: \['cow'\], unknown in it: \['dog'\]"):
        read_annotations(file, ("cat", "cow"))


def test_a_file_to_evaluate_on_may_lack_a_class_but_have_no_other(write_coco):
    file = write_coco([image()], [annotation(1), annotation(2, category_id=8)])
    read = read_annotations(file, ("cow", "dog", "cat", "hen"), on_bad_annotation="skip", may_lack_classes=True)
    assert read.category_ids == (8, 7, 3, 9)
    assert read.labels.tolist() == [1]
    assert read.rejected.annotations == (1,)  # 8 is free for the cow because the file has no such category
    with pytest.raises(AnnotationError, match=r"unknown in it: \['cat'\]"):
        read_annotations(file, ("cow", "dog"), may_lack_classes=True)


def test_classes_of_a_file_come_in_the_order_of_their_ids(write_coco):
    file = write_coco([], [], categories=[{"id": 90, "name": "b"}, {"id": 4, "name": "z"}])
    assert classes_of(file) == (("z", "b"), (4, 90))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[1", "is no JSON file"),
        ("[]", "has no list 'images'"),
        ('{"images": [], "annotations": [], "categories": [1]}', "entry that is no object"),
        ('{"images": [], "annotations": [], "categories": []}', "has no category"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}', "unique"),
        ('{"images": [], "annotations": [], "categories": [{"id": "1", "name": "a"}]}', "integer is needed"),
    ],
)
def test_a_file_that_is_no_coco_file_is_named(tmp_path, content, reason):
    file = tmp_path / "broken.json"
    file.write_text(content)
    with pytest.raises(AnnotationError, match=reason) as error:
        classes_of(file)
    assert str(file) in str(error.value)


def test_a_missing_annotation_file_is_named(tmp_path):
    with pytest.raises(AnnotationError, match=r"nowhere\.json: there is no such annotation file"):
        classes_of(tmp_path / "nowhere.json")


def test_two_things_that_are_wrong_with_a_record_are_both_found(write_coco):
    pairs = [pair for pair in combinations(BAD, 2) if not BAD[pair[0]].keys() & BAD[pair[1]].keys()]
    pairs = [pair for pair in pairs if "belongs to image_id 9" not in pair]  # then its size is not known
    records = [{**annotation(i), **BAD[one], **BAD[other]} for i, (one, other) in enumerate(pairs, start=2)]
    file = write_coco([image()], [annotation(1), *records])
    _, problems = read_index(file, CLASSES, may_lack_classes=False)
    assert len(problems.found) == 2 * len(problems.rejected) == 2 * len(pairs) > 200
    found = iter(problems.found)
    for pair in pairs:
        both = f"{next(found)}\n{next(found)}"
        assert all(reason in both for reason in pair), (pair, both)
    with pytest.raises(AnnotationError, match=rf"\(and {len(pairs) - 1} more bad records\)"):
        read_annotations(file, CLASSES)


@pytest.mark.parametrize("is_on", [True, False])
def test_reading_leaves_the_garbage_collector_as_it_was_after_an_error_as_well(write_coco, tmp_path, is_on):
    file = write_coco([image(1)], [annotation(1)])
    before = gc.isenabled()
    try:
        (gc.enable if is_on else gc.disable)()
        read_annotations(file, CLASSES)
        assert gc.isenabled() == is_on
        with pytest.raises(AnnotationError):
            read_annotations(tmp_path / "absent.json", CLASSES)
        assert gc.isenabled() == is_on
    finally:
        (gc.enable if before else gc.disable)()
