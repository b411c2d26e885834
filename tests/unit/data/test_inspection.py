"""A check of a data set finds everything that is wrong, not only the first of it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from coco_records import CATEGORIES, annotation, image
from PIL import Image

from r3cnn.cli.data import processes
from r3cnn.data import inspection
from r3cnn.data.inspection import inspect, shared_images
from r3cnn.data.loading import ImageReader
from r3cnn.data.split import Split

CLASSES = ("cat", "dog")
IN_8_BITS = ImageReader()


def inspected(file, workers=0, reader=IN_8_BITS):
    split = Split(file.parent / "images", file)
    return inspect(split, CLASSES, is_training=True, max_overhang=0.1, workers=workers, reader=reader)


def test_a_sound_data_set_has_no_problem(write_coco):
    file = write_coco([image(1)], [annotation(1), annotation(2, category_id=3, bbox=[11, 20, 20, 20])])
    found = inspected(file)
    assert found.problems == ()
    assert found.notes == ()
    assert found.annotations is not None


def broken_set(write_coco):
    images = [image(number) for number in range(1, 8)]
    annotations = [
        annotation(1, category_id=99),
        annotation(2, bbox=[10, 20, 0, 20]),
        annotation(3, segmentation=[[1, 2, 3, 4]]),
        annotation(3),
        annotation(4, image_id=77),
        annotation(5, image_id=7),
    ]
    file = write_coco([*images, image(8, height=-5)], annotations)
    folder = file.parent / "images"
    (folder / "2.png").unlink()
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:200])
    (folder / "4.png").write_bytes(b"nothing")
    Image.fromarray(np.zeros((80, 60, 3), dtype=np.uint8)).save(folder / "5.png")
    return file


@pytest.mark.parametrize("workers", [0, 2])
def test_every_bad_record_and_every_bad_image_is_named(write_coco, workers):
    problems = inspected(broken_set(write_coco), workers).problems
    expected = [
        "image 8 has height -5",
        "annotation 1 has unknown category_id 99",
        "annotation 2 has bbox [10, 20, 0, 20] of zero area",
        "annotation 3 has 2 points in polygon 0",
        "annotation 3 has the id of another annotation",
        "annotation 4 belongs to image_id 77",
        "image 2: '2.png' is not in",
        "image 3 (3.png) cannot be read as an image",
        "image 4 (4.png) cannot be read as an image",
        "image 5 (5.png) is 80 px high and 60 px wide",
        "image 8: '8.png' is not in",
    ]
    for beginning in expected:
        assert [sentence for sentence in problems if sentence.startswith(beginning)], beginning
    assert len(problems) == len(expected)


def test_each_field_that_is_wrong_is_named_not_only_the_first_of_a_record(write_coco):
    polygons = [[1, 2, 3], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, None]]
    worst = {"image_id": 77, "category_id": 99, "bbox": [1, 2, 0, 4], "area": -1, "iscrowd": 5}
    runs = {"size": [80, 60], "counts": [5, -1]}
    file = write_coco(
        [image(1), image(1, file_name="\n.png", height="60", width=0)],
        [
            annotation(None, **worst, segmentation=polygons),
            annotation(2, bbox=[70, 20, 20, 20], segmentation=runs),
            annotation(3, image_id=77, segmentation={"size": 5, "counts": [5]}),
            annotation(2, iscrowd="no"),
            annotation(2),
            annotation(4),
        ],
    )
    assert inspected(file).problems == (
        "image 1 has the id of another image: one of its own is needed; "
        "has file_name '\\n.png', with a control character; "
        "has height '60': an integer from 1 to 65535 is needed; "
        "has width 0: an integer from 1 to 65535 is needed",
        "annotation at position 0 has id None: a whole number or text is needed; "
        "belongs to image_id 77, which is not in the file (or is bad itself); "
        "has unknown category_id 99: one of the file's, [3, 7], is needed; "
        "has area -1: a number of pixels >= 0 is needed; "
        "has iscrowd 5: 0 or 1 is needed; "
        "has bbox [1, 2, 0, 4] of zero area: width and height above 0 are needed; "
        "has 3 numbers in polygon 0 of its segmentation: x and y come in pairs; "
        "has None in polygon 2 of its segmentation, which is no finite number",
        "annotation 2 has bbox [70, 20, 20, 20], which lies outside its image of (height, width) = [60, 80] "
        "by 12.5 % of a side, max_overhang is 10 %; "
        "has run lengths (RLE) of size [80, 60] as segmentation: that of its image, [height, width] = "
        "[60, 80], is needed; "
        "has -1 in the counts of its run lengths (RLE): integers >= 0 are needed",
        "annotation 3 belongs to image_id 77, which is not in the file (or is bad itself); "
        "has run lengths (RLE) of size 5 as segmentation: [height, width] is needed",
        "annotation 2 has the id of another annotation: one of its own is needed; has iscrowd 'no': 0 or 1 is needed",
        "annotation 2 has the id of another annotation: one of its own is needed",
    )


def test_problems_are_counted_by_records_though_they_read_the_same(write_coco):
    file = write_coco([image(1)], [annotation(1), *(annotation(2, area=-1) for _ in range(3))])
    assert len(inspected(file).problems) == 3


def test_a_training_set_without_anything_to_learn_from_is_a_problem(write_coco):
    (problem,) = inspected(write_coco([image(1)], [annotation(1, iscrowd=1)])).problems
    assert "nothing to learn from, 0 objects in 1 images; left out: 1 crowds (iscrowd 1)" in problem


def test_images_of_bad_records_are_decoded_where_their_name_is_sound(write_coco):
    images = [
        image(1),
        image("two"),
        image(3, height=0),
        image(1, file_name="4.png"),
        image("five"),
        image(-1, width=-1),
    ]
    file = write_coco([*images, image("out", file_name="../1.png")], [annotation(1)])
    folder = file.parent / "images"
    for name in ("two.png", "3.png"):
        (folder / name).write_bytes(b"nothing")
    for name in ("five.png", "-1.png"):
        Image.fromarray(np.zeros((80, 60, 3), dtype=np.uint8)).save(folder / name)
    found = inspected(file)
    about_files = [problem for problem in found.problems if ".png" in problem]
    assert [problem.split(".png")[0] for problem in about_files] == [
        "image 'two' (two",
        "image 3 (3",
        "image 1: '4",
        "image 'five' (five",
        "image 'out': '../1",
    ]
    assert "cannot be read as an image" in about_files[0]
    assert "is not in" in about_files[2]
    assert "is 80 px high and 60 px wide" in about_files[3]
    assert "leaves the image folder" in about_files[4]
    assert set(found.digests) == {"1.png", "-1.png"}


def test_what_looks_wrong_is_noted_and_no_problem(write_coco):
    far = [[50.0, 50.0, 60.0, 50.0, 60.0, 58.0]]
    empty = {"size": [60, 80], "counts": [60 * 80]}
    file = write_coco(
        [image(1), image(2), image(3, file_name="1.png")],
        [
            annotation(1),
            annotation(2),
            annotation(3, image_id=2, segmentation=far),
            annotation(4, image_id=2, bbox=[1, 1, 9, 9], segmentation=empty),
        ],
    )
    folder = file.parent / "images"
    shutil.copy(folder / "1.png", folder / "2.png")
    shutil.copy(folder / "1.png", folder / "left_over.png")
    found = inspected(file)
    assert found.problems == ()
    notes = "\n".join(found.notes)
    assert "image file 1.png is named by 2 image records" in notes
    assert "image files 1.png, 2.png have the same content" in notes
    assert "1 image files in" in notes
    assert "first: left_over.png" in notes
    assert "image 1 has an object at [10.0, 20.0, 30.0, 40.0] (x1, y1, x2, y2) twice" in notes
    assert "image 2 has an object at [10.0, 20.0, 30.0, 40.0] (x1, y1, x2, y2) whose mask reaches over" in notes
    assert "[1.0, 1.0, 10.0, 10.0] (x1, y1, x2, y2) whose mask has no pixel" in notes
    assert "1 of 2 classes have no object: cat" in notes
    assert len(found.notes) == 7


@pytest.mark.parametrize(
    ("orientation", "is_noted"), [(0, False), (1, False), (2, True), (6, True), (8, True), (9, False)]
)
def test_images_that_their_exif_tag_turns_are_noted_since_a_square_does_not_tell_by_its_size(
    write_coco, orientation, is_noted
):
    file = write_coco([image(1, height=60, width=60)], [annotation(1), annotation(2, category_id=3)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((60, 60, 3), dtype=np.uint8)).save(file.parent / "images/1.png", exif=exif)
    found = inspected(file)
    assert found.problems == ()
    turned = [note for note in found.notes if "by their EXIF tag" in note]
    assert len(turned) == is_noted
    assert all("1 image files" in note and note.endswith("first: 1.png") for note in turned)


def grey_set(write_coco, *images):
    """Two objects in images 1, 2, … with these pixels."""
    records = [image(number, file_name=f"{number}.tif") for number in range(1, len(images) + 1)]
    file = write_coco(records, [annotation(1), annotation(2, category_id=3, bbox=[11, 20, 20, 20])])
    for number, pixels in enumerate(images, start=1):
        Image.fromarray(pixels).save(file.parent / f"images/{number}.tif")
    return file


def grey(low, high, dtype):
    return np.linspace(low, high, 60 * 80).reshape(60, 80).astype(dtype)


@pytest.mark.parametrize(
    ("image_range", "images", "note"),
    [
        (
            None,
            [(9, 4000, "uint16"), (0, 3000, "uint16")],
            "[0,4095] fits them; with [0,65535] they become 17 of 256 levels",
        ),
        (None, [(0, 255, "int32")], "[0,255] fits them; with [0,65535] they become 2 of 256 levels"),
        ([0, 65535], [(0, 255, "uint16")], "[0,255] fits them; with [0,65535] they become 2 of 256 levels"),
        ([0, 4095], [(0, 60000, "uint16")], "[0,65535] fits them; with [0,4095] values outside are clipped"),
        (None, [(0, 60000, "uint16")], None),
        ([0, 4095], [(9, 4000, "uint16"), (0, 3000, "float32")], None),
        (None, [(0, 255, "uint8")], None),
    ],
)
def test_the_range_of_grey_values_that_fits_a_data_set_is_noted_where_another_is_set(
    write_coco, image_range, images, note
):
    found = inspected(grey_set(write_coco, *(grey(*one) for one in images)), reader=ImageReader(image_range))
    assert found.problems == ()
    noted = [one for one in found.notes if "more than 8 bits" in one]
    assert [one.split("data.image_range=")[1] for one in noted] == ([note] if note else [])


def test_floats_are_a_problem_of_each_image_and_their_range_is_noted(write_coco):
    file = grey_set(write_coco, grey(-1.5, 0, "float32"), grey(0, 2, "float32"), grey(0, 255, "uint8"))
    found = inspected(file)
    assert [problem.split(":")[0] for problem in found.problems] == [
        f"image {n} ({n}.tif) cannot be used" for n in (1, 2)
    ]
    (note,) = [one for one in found.notes if "more than 8 bits" in one]
    assert note.startswith(
        "2 of 3 images have more than 8 bits, with grey values from -1.5 to 2: data.image_range=[-1.5,2]"
    )
    assert inspected(file, reader=ImageReader([-1.5, 2])).problems == ()


def test_pages_that_are_not_used_are_counted(write_coco):
    file = grey_set(write_coco, grey(0, 255, "uint8"))
    page = Image.fromarray(grey(0, 255, "uint8"))
    page.save(file.parent / "images/1.tif", save_all=True, append_images=[page])
    assert (
        "1 image files hold several pages or frames, of which the first is used; first: 1.tif" in inspected(file).notes
    )


def test_a_file_that_cannot_be_read_is_the_one_problem(write_coco, tmp_path):
    cow = annotation(1, category_id=9)
    other = write_coco([image(1)], [cow], categories=[*CATEGORIES, {"id": 9, "name": "cow"}])
    (problem,) = inspected(other).problems
    assert "unknown in it: ['cow' (1 annotations)]" in problem
    (tmp_path / "no.json").write_text("{")
    (problem,) = inspected(tmp_path / "no.json").problems
    assert "is not valid JSON" in problem


def test_a_file_of_other_classes_is_looked_through_with_its_own(write_coco):
    categories = [*CATEGORIES, {"id": 9, "name": "cow"}]
    file = write_coco(
        [image(1), image(2)], [annotation(1, category_id=9), annotation(2, area=-1)], categories=categories
    )
    (file.parent / "images" / "2.png").unlink()
    found = inspected(file)
    assert found.annotations is None
    assert [problem.split(" ")[0] for problem in found.problems] == [f"{file}:", "annotation", "image"]


def test_an_image_in_both_data_sets_is_found_by_its_content(write_coco):
    train = inspected(write_coco([image(1), image(2)], [annotation(1)]))
    folder = train.file.parent / "images"
    shutil.copy(folder / "2.png", folder / "other.png")
    val = inspected(write_coco([image(5, file_name="other.png")], [annotation(1, image_id=5)], name="val.json"))
    (note,) = shared_images(val, train)
    assert note == "image other.png is 2.png of coco.json: what is learnt from must not be evaluated on"


def named_looker(file):
    return inspection._Look(problem=file.name)


def test_files_are_handed_out_as_they_are_looked_at_and_come_back_in_their_order():
    taken = []

    def files():
        for number in range(2000):
            taken.append(number)
            yield inspection._ImageFile(str(number), str(number), None)

    looks = inspection._look_at_all(files(), 2, named_looker)
    first = next(looks)
    assert len(taken) <= (2 * inspection.TASKS_AHEAD + 1) * inspection.FILES_PER_TASK
    found = [first, *looks]
    assert [look.problem for _, look in found] == [file.name for file, _ in found] == [str(one) for one in range(2000)]


def test_as_many_processes_look_at_images_as_there_are_cores_unless_none_may_load(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {*range(12)})
    assert [processes(workers) for workers in (0, 2, 20)] == [0, 12, 20]
