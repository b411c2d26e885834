from __future__ import annotations

import gc
import gzip
import json
import logging
import math
import re
import unicodedata
from itertools import combinations

import numpy as np
import pytest
from coco_records import CATEGORIES, SQUARE, annotation, image
from pycocotools import mask as coco_mask

from r3cnn.data import annotations, coco_file
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


def test_what_is_too_small_to_learn_from_is_counted_by_its_reason_and_an_area_of_zero_is_not_believed(write_coco):
    line = [[10, 20, 30, 20, 10, 20]]
    small = [annotation(2, bbox=[10, 20, 0.9, 20]), annotation(3, area=0, segmentation=line), annotation(4, iscrowd=1)]
    read = read_annotations(write_coco([image()], [annotation(1), annotation(5, area=0), *small]), CLASSES)
    assert len(read.labels) == 2
    assert len(read.rejected) == 0
    assert read.summary == (
        "2 objects in 1 images; left out: 1 crowds (iscrowd 1), 1 with a box side below 1 px, "
        "1 with an area of 0 and a mask without a pixel"
    )


@pytest.mark.parametrize(("max_overhang", "is_read"), [(0.1, True), (0.0749, False), (0, False)])
def test_a_box_that_reaches_over_its_image_is_clipped_up_to_the_share_that_is_set(write_coco, max_overhang, is_read):
    file = write_coco([image()], [annotation(bbox=[-6.0, 20.0, 90.0, 40.5])])
    if is_read:
        assert read_annotations(file, CLASSES, max_overhang=max_overhang).boxes.tolist() == [[0, 20, 80, 60]]
        return
    with pytest.raises(AnnotationError, match=r"outside its image .* by 7\.5 % of a side, max_overhang is"):
        read_annotations(file, CLASSES, max_overhang=max_overhang)


def test_an_object_without_a_box_gets_that_of_its_mask(write_coco):
    record = annotation()
    del record["bbox"]
    assert read_annotations(write_coco([image()], [record]), CLASSES).boxes.tolist() == [[10, 20, 30, 40]]


@pytest.mark.parametrize(
    ("boxes", "suspicion"),
    [
        ([[0.1, 0.2, 0.3, 0.3], [0.5, 0.5, 0.4, 0.5]], "2 of 2 boxes lie between 0 and 1: normalised coordinates?"),
        ([[10, 20, 30, 40], [50, 30, 70, 50]], r"1 of 2 boxes reach over .* would not as corners: \[x1, y1, x2, y2\]?"),
    ],
)
def test_boxes_of_another_convention_are_suspected_by_name(write_coco, caplog, boxes, suspicion):
    file = write_coco([image()], [annotation(number, bbox=box) for number, box in enumerate(boxes)])
    with caplog.at_level(logging.WARNING):
        read_annotations(file, CLASSES, "skip")
    assert re.search(suspicion, caplog.text)
    _, problems = read_index(file, CLASSES, may_lack_classes=False, max_overhang=0.1)
    if problems.found:
        with pytest.raises(AnnotationError, match=suspicion):
            read_annotations(file, CLASSES)


@pytest.mark.parametrize("nothing", [None, [], [[]]])
def test_an_export_of_boxes_alone_is_suspected_by_name(write_coco, nothing):
    file = write_coco([image()], [annotation(number, segmentation=nothing) for number in range(3)])
    with pytest.raises(AnnotationError, match=r"and 2 more bad .*no annotation has a mask: an export of boxes"):
        read_annotations(file, CLASSES)


def test_ordinary_boxes_that_reach_over_are_not_suspected(write_coco):
    boxes = [[60, 20, 25, 20], [-2, 5, 10, 10], [10, 50, 20, 12]]
    file = write_coco([image()], [annotation(number, bbox=box) for number, box in enumerate(boxes)])
    assert read_index(file, CLASSES, may_lack_classes=False, max_overhang=0.1)[1].notes == []


def test_a_file_without_annotations_is_read(write_coco):
    read = read_annotations(write_coco([image(1), image(2)], []), CLASSES)
    assert len(read) == 2
    assert read.objects(1).boxes.shape == (0, 4)


BAD = {
    "unknown category_id 5: one of the file's, [3, 7]": {"category_id": 5},
    "belongs to image_id 9": {"image_id": 9},
    "finite numbers": {"bbox": [10.0, math.nan, 20.0, 20.0]},
    "of zero area: width and height above 0": {"bbox": [10.0, 20.0, 0.0, 20.0]},
    "outside its image": {"bbox": [10.0, 20.0, 88.5, 20.0]},
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
    "'a\\nb.png', with a control character": {"file_name": "a\nb.png"},
    "a path below the image folder is needed": {"file_name": ""},
    "has height 0": {"height": 0},
    "has width '80'": {"width": "80"},
    "has the id of another image": {"id": 1, "file_name": "other.png"},
    "has id 'two', others 1: numbers and text do not mix": {"id": "two"},
    "has id 1.5: a whole number or text": {"id": 1.5},
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
    with pytest.raises(
        AnnotationError, match=r"missing in the file: \['cow'\], unknown in it: \['dog' \(0 annotations\)"
    ):
        read_annotations(file, ("cat", "cow"))


def test_a_file_to_evaluate_on_may_lack_a_class_but_have_no_other(write_coco):
    file = write_coco([image()], [annotation(1), annotation(2, category_id=8)])
    read = read_annotations(file, ("cow", "dog", "cat", "hen"), on_bad_annotation="skip", may_lack_classes=True)
    assert read.category_ids == (8, 7, 3, 9)
    assert read.labels.tolist() == [1]
    assert read.rejected.annotations == (1,)  # 8 is free for the cow because the file has no such category
    file = write_coco([image()], [annotation(i, category_id=3) for i in (1, 2)])
    with pytest.raises(AnnotationError, match=r"unknown in it: \['cat' \(2 annotations\)\]"):
        read_annotations(file, ("cow", "dog"), may_lack_classes=True)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_class_is_the_same_however_its_letters_are_composed(write_coco, form):
    file = write_coco([image()], [annotation()], [{"id": 7, "name": unicodedata.normalize(form, "K\u00e4fer")}])
    assert classes_of(file) == ("K\u00e4fer",)
    assert read_annotations(file, ("K\u00e4fer",)).category_ids == (7,)


def test_a_class_of_the_file_that_no_annotation_has_is_ignored_with_a_note(write_coco, caplog):
    file = write_coco([image()], [annotation()], [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}])
    with caplog.at_level(logging.WARNING):
        assert read_annotations(file, ("dog",)).category_ids == (7,)
    assert "no annotation ignored: ['cat']" in caplog.text


@pytest.mark.parametrize(
    ("categories", "classes"),
    [
        ([{"id": 90, "name": "b"}, {"id": 7, "name": "z"}], ("z", "b")),
        ([{"id": 7, "name": 2}, {"id": 8, "name": 1.5}, {"id": 9}], ("2", "1.5", "9")),
        ([{"id": 0, "name": "z"}, {"id": 7, "name": "z"}, {"id": 7, "name": "z"}], ("z",)),
        ([{"id": 7, "name": "z"}, {"id": 8, "name": "a"}, {"id": 8, "name": "b"}], ("z", "a")),
        (
            [{"id": 0, "name": "all", "supercategory": "none"}, {"id": 7, "name": "z", "supercategory": "all"}],
            ("z",),
        ),
        (
            [{"id": 7, "name": "all", "supercategory": "none"}, {"id": 8, "name": "z", "supercategory": "all"}],
            ("all", "z"),
        ),
    ],
)
def test_classes_of_a_file_come_as_text_in_the_order_of_their_ids_without_unused_twins_and_roots(
    write_coco, categories, classes
):
    file = write_coco([image()], [annotation()], categories=categories)
    assert classes_of(file) == classes
    assert read_annotations(file, classes).category_ids[classes.index(str(classes[0]))] in (7, 9)


@pytest.mark.parametrize("kind", [str, float])
def test_ids_that_are_text_or_whole_floats_are_taken_and_told_again(write_coco, kind):
    images = [image(kind(number), file_name=f"{number}.png") for number in (20, 3)]
    records = [
        annotation(kind(7), image_id=kind(3), category_id=kind(1)),
        annotation(kind(8), image_id=kind(20), category_id=kind(1)),
    ]
    file = write_coco(images, records, [{"id": kind(1), "name": "dog"}])
    read = read_annotations(file, ("dog", "cat"), may_lack_classes=True)
    assert [read.file_ids.get(one, one) for one in read.image_ids.tolist()] == (
        [20, 3] if kind is float else ["20", "3"]
    )
    assert np.diff(read.starts).tolist() == [1, 1]
    assert read.category_ids[0] == ("1" if kind is str else 1)
    assert read.category_ids[1] not in ("1", 1)


def test_an_id_whose_text_is_asked_for_is_named_as_another(write_coco):
    file = write_coco([image(1)], [annotation(1, image_id="1", category_id="7")])
    with pytest.raises(AnnotationError, match=r"belongs to image_id '1', .*; 1 is, but numbers and text are different"):
        read_annotations(file, CLASSES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_encoding_of_json_is_read(tmp_path, write_coco, encoding):
    content = json.loads(write_coco([image(file_name="ä 😀.png")], [annotation()]).read_text())
    file = tmp_path / "encoded.json"
    file.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert read_annotations(file, CLASSES).file_names.tolist() == ["ä 😀.png"]


def test_another_encoding_is_named_with_the_file_and_the_place(tmp_path):
    file = tmp_path / "latin.json"
    file.write_bytes('{"images": [],\n "categories": [{"id": 1, "name": "Käfer"}]}'.encode("latin-1"))
    with pytest.raises(AnnotationError, match=r"latin\.json: byte 51 \(line 2\) is not valid UTF-8: .*Käfer"):
        classes_of(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("PK\x03\x04", "is a ZIP archive: unpack it"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS .* `git lfs pull`"),
        ("[1", "is not valid JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": [], "annotations": [], "categories": [1]}', "entry that is no object"),
        ('{"images": [], "annotations": [], "categories": []}', "has no category"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": ["a"]}]}', "text is needed"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1.5, "name": "a"}]}', "whole number or text"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}, {"id": "2"}]}', "numbers and text"),
        (
            '{"images": [], "annotations": [{"category_id": 1}, {"category_id": 2}, {"category_id": 2}], '
            '"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}',
            r"share a name or an id: 1 'a' \(1 annotations\), 2 'a' \(2 annotations\)",
        ),
    ],
)
def test_a_file_that_is_no_coco_file_is_named(tmp_path, content, reason):
    file = tmp_path / "broken.json"
    file.write_text(content)
    with pytest.raises(AnnotationError, match=reason) as error:
        classes_of(file)
    assert str(file) in str(error.value)


def test_a_compressed_file_under_the_name_of_a_plain_one_is_told_as_that(tmp_path, write_coco):
    file = tmp_path / "packed.json"
    file.write_bytes(gzip.compress(write_coco([image()], [annotation()]).read_bytes()))
    with pytest.raises(AnnotationError, match=r"packed\.json: is compressed with gzip: unpack it"):
        classes_of(file)


def test_a_missing_annotation_file_is_named(tmp_path):
    with pytest.raises(AnnotationError, match=r"nowhere\.json: there is no such annotation file"):
        classes_of(tmp_path / "nowhere.json")


def test_two_things_that_are_wrong_with_a_record_are_both_found(write_coco):
    pairs = [pair for pair in combinations(BAD, 2) if not BAD[pair[0]].keys() & BAD[pair[1]].keys()]
    pairs = [pair for pair in pairs if "belongs to image_id 9" not in pair]  # then its size is not known
    records = [{**annotation(i), **BAD[one], **BAD[other]} for i, (one, other) in enumerate(pairs, start=2)]
    file = write_coco([image()], [annotation(1), *records])
    _, problems = read_index(file, CLASSES, may_lack_classes=False, max_overhang=0.1)
    assert len(problems.found) == len(problems.rejected) == len(pairs) > 100
    for pair, both in zip(pairs, problems.found, strict=True):
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


def test_the_classes_of_a_file_are_found_without_its_other_records_unless_these_decide(write_coco, monkeypatch):
    read = []
    monkeypatch.setattr(annotations, "read_text", lambda file: read.append(file) or coco_file.read_text(file))
    file = write_coco([image()], [annotation(1)])
    assert classes_of(file) == ("cat", "dog")
    assert read == []
    file.write_text("\ufeff" + file.read_text())
    assert classes_of(file) == ("cat", "dog")
    twice = write_coco([image()], [annotation(1)], categories=[*CATEGORIES, {"id": 9, "name": "cat"}], name="b.json")
    assert classes_of(twice) == ("cat", "dog")
    assert read == [file, twice]
