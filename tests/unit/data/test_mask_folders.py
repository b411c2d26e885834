"""COCO files from mask images say the same as the masks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from r3cnn.data.mask_folders import MaskReading, convert_masks, write_coco
from r3cnn.data.reading import read_annotations
from r3cnn.data.segmentation import decode

FOLDERS, INDEX = MaskReading("folders"), MaskReading("index")


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def picture(folder, name, size=(20, 30)):
    save(folder / "images" / name, np.zeros((*size, 3), dtype=np.uint8))


def square(size=(20, 30), box=(2, 3, 12, 13), value=255, dtype=np.uint8):
    mask = np.zeros(size, dtype=dtype)
    mask[box[1] : box[3], box[0] : box[2]] = value
    return mask


def dense_masks(content, folder, classes):
    """(class, mask) of every object of every image, read back as a run reads them, by file name."""
    file = folder / "coco.json"
    write_coco(content, file)
    annotations = read_annotations(file, classes)
    found = {}
    for index, name in enumerate(annotations.file_names.tolist()):
        objects, size = annotations.objects(index), annotations.size(index)
        rows = found.setdefault(name, [])
        for label, segment in zip(objects.labels.tolist(), objects.segments, strict=True):
            crop, mask = decode(segment, size), np.zeros(size, dtype=bool)
            mask[:, crop.x : crop.x + len(crop.columns)] = crop.columns.T
            rows.append((classes[label], mask))
    return found


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), layout=st.sampled_from(["folders", "index"]), num_images=st.integers(1, 3))
def test_masks_come_back_bit_by_bit_from_either_layout(tmp_path_factory, seed, layout, num_images):
    folder, random = tmp_path_factory.mktemp("round"), np.random.default_rng(seed)
    expected = {}
    for number in range(num_images):
        size = (int(random.integers(6, 40)), int(random.integers(6, 40)))
        name = f"deep/{number}.png"
        picture(folder, name, size)
        numbers = np.kron(random.integers(0, 5, (2, 2)), np.ones((20, 20), dtype=int))[: size[0], : size[1]]
        kept = [n for n in range(1, 5) if (numbers == n).any()]
        expected[name] = [numbers == n for n in kept]
        if layout == "index":
            save(folder / "masks" / name, numbers.astype(np.uint16 if seed % 2 else np.uint8))
        for n in kept if layout == "folders" else ():
            save(folder / f"masks/deep/{number}/{n}.png", ((numbers == n) * 255).astype(np.uint8))
    if not any(expected.values()):
        return
    content = convert_masks(folder / "images", folder / "masks", MaskReading(layout))
    found = dense_masks(content, folder, ("object",))
    assert found.keys() == expected.keys()
    for name, masks in expected.items():
        # what has a side below one pixel cannot be there: masks are made of whole pixels
        assert [mask.tolist() for _, mask in found[name]] == [mask.tolist() for mask in masks]


def test_boxes_and_areas_are_those_of_the_masks(tmp_path):
    picture(tmp_path, "a.png")
    save(tmp_path / "masks/a/1.png", square())
    content = convert_masks(tmp_path / "images", tmp_path / "masks", FOLDERS)
    (entry,) = content["annotations"]
    assert (entry["bbox"], entry["area"], entry["iscrowd"]) == ([2, 3, 10, 10], 100, 0)
    assert content["images"] == [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}]
    assert content["categories"] == [{"id": 1, "name": "object"}]


def test_folders_inside_are_classes(tmp_path):
    picture(tmp_path, "a.jpg")
    save(tmp_path / "masks/a/dog/1.png", square())
    save(tmp_path / "masks/a/cat/1.png", square(box=(20, 3, 28, 9)))
    found = dense_masks(convert_masks(tmp_path / "images", tmp_path / "masks", FOLDERS), tmp_path, ("cat", "dog"))
    assert {name: int(mask.sum()) for name, mask in found["a.jpg"]} == {"cat": 48, "dog": 100}


def test_numbers_carry_the_class_where_there_is_a_divisor_and_other_classes_are_left_out(tmp_path):
    picture(tmp_path, "a.png")
    numbers = square(value=24001, dtype=np.uint16)
    numbers[15:18, 15:20] = 26002
    numbers[0:2] = 7  # street, no instance
    save(tmp_path / "masks/a.png", numbers)
    reading = MaskReading("index", class_divisor=1000, class_ids={24: "person", 26: "car"})
    found = dense_masks(convert_masks(tmp_path / "images", tmp_path / "masks", reading), tmp_path, ("car", "person"))
    assert [(name, int(mask.sum())) for name, mask in found["a.png"]] == [("person", 100), ("car", 15)]


def test_palette_images_hold_their_indices_and_more_than_one_number_may_be_background(tmp_path):
    picture(tmp_path, "a.png")
    numbers = square(value=3)
    numbers[:, -1] = 255
    image = Image.fromarray(numbers).convert("P")
    image.putpalette([(7 * n) % 256 for n in range(768)])
    (tmp_path / "masks").mkdir()
    image.save(tmp_path / "masks/a.png")
    content = convert_masks(tmp_path / "images", tmp_path / "masks", MaskReading("index", background=(0, 255)))
    assert [entry["area"] for entry in content["annotations"]] == [100]


def test_a_picture_without_masks_is_an_image_without_objects(tmp_path):
    picture(tmp_path, "a.png")
    picture(tmp_path, "b.png")
    save(tmp_path / "masks/b/1.png", square())
    save(tmp_path / "masks/b/2.png", square(value=0))  # nothing was drawn
    content = convert_masks(tmp_path / "images", tmp_path / "masks", FOLDERS)
    assert [entry["image_id"] for entry in content["annotations"]] == [2]
    assert len(content["images"]) == 2


def test_soft_edges_need_a_threshold(tmp_path):
    picture(tmp_path, "a.png")
    soft = square()
    soft[3, 2:12] = 100
    save(tmp_path / "masks/a/1.png", soft)
    with pytest.raises(ValueError, match=r"a/1\.png holds 3 grey values.*threshold=128"):
        convert_masks(tmp_path / "images", tmp_path / "masks", FOLDERS)
    content = convert_masks(tmp_path / "images", tmp_path / "masks", MaskReading("folders", threshold=128))
    assert [entry["area"] for entry in content["annotations"]] == [90]


def test_one_bit_masks_are_read_with_and_without_a_threshold(tmp_path):
    picture(tmp_path, "a.png")
    save(tmp_path / "masks/a/1.png", square() > 0)
    for reading in (FOLDERS, MaskReading("folders", threshold=128)):
        content = convert_masks(tmp_path / "images", tmp_path / "masks", reading)
        assert [entry["area"] for entry in content["annotations"]] == [100]


def colored(folder):
    save(folder / "masks/a.png", np.dstack([square(), square(value=9), square()]))


def two_pages(folder):
    (folder / "masks").mkdir()
    pages = [Image.fromarray(square()), Image.fromarray(square())]
    pages[0].save(folder / "masks/a.tif", save_all=True, append_images=pages[1:])


def not_an_image(folder):
    (folder / "masks").mkdir()
    (folder / "masks/a.png").write_bytes(b"no image")


def twice(folder):
    save(folder / "masks/a.png", square())
    save(folder / "masks/a.tif", square())


@pytest.mark.parametrize(
    ("write", "reading", "message"),
    [
        (lambda folder: save(folder / "masks/a/1.png", square((20, 31))), FOLDERS, r"a/1\.png is 20 px high and 31 px"),
        (lambda folder: save(folder / "masks/b/1.png", square()), FOLDERS, r"no picture for the masks .*b: for a/b"),
        (lambda folder: save(folder / "masks/a/x/y/1.png", square()), FOLDERS, r"no picture for the masks .*x/y"),
        (lambda folder: save(folder / "masks/b.png", square()), INDEX, r"no picture for the masks .*b\.png"),
        (lambda folder: save(folder / "masks/a.jpg", square()), INDEX, r"a\.jpg.*JPEG file, which changes numbers"),
        (colored, INDEX, r"a\.png.*it has colours \(mode RGB\)"),
        (two_pages, INDEX, r"a\.tif.*several pages"),
        (not_an_image, INDEX, r"a\.png: cannot be read as a mask"),
        (twice, INDEX, "are both masks of picture a"),
        (lambda folder: (folder / "masks").mkdir(), FOLDERS, "holds no mask image"),
        (lambda folder: None, FOLDERS, "masks=.* is no folder"),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name(tmp_path, write, reading, message):
    picture(tmp_path, "a.png")
    write(tmp_path)
    with pytest.raises(ValueError, match=message):
        convert_masks(tmp_path / "images", tmp_path / "masks", reading)


def test_pictures_that_would_share_masks_are_refused(tmp_path):
    picture(tmp_path, "a.png")
    picture(tmp_path, "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png would have the same masks"):
        convert_masks(tmp_path / "images", tmp_path / "masks", FOLDERS)


def test_a_picture_inside_another_one_s_masks_is_refused(tmp_path):
    picture(tmp_path, "a.png")
    picture(tmp_path, "a/b.png")
    save(tmp_path / "masks/a/b/1.png", square())
    with pytest.raises(ValueError, match="picture a/b would lie among those of a"):
        convert_masks(tmp_path / "images", tmp_path / "masks", FOLDERS)


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="holds no picture"):
        convert_masks(tmp_path / "images", tmp_path / "masks", FOLDERS)


@pytest.mark.parametrize(
    "values",
    [{"layout": "index", "class_divisor": 1000}, {"layout": "index", "class_ids": {1: "a"}}],
)
def test_contradictory_settings_are_refused(values):
    with pytest.raises(ValueError, match="class_divisor is"):
        MaskReading(**values)


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path):
    write_coco({"images": []}, tmp_path / "new/coco.json")
    assert json.loads((tmp_path / "new/coco.json").read_text()) == {"images": []}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["coco.json"]


def test_hidden_files_and_other_files_are_no_pictures_and_no_masks_and_endings_may_be_in_capitals(tmp_path):
    picture(tmp_path, "a.PNG")
    save(tmp_path / "masks/a.PNG", square(value=7))
    for name in ("images/._a.png", "masks/._a.png", "images/.DS_Store", "images/a.mpeg", "masks/notes.txt"):
        (tmp_path / name).write_bytes(b"no image")
    content = convert_masks(tmp_path / "images", tmp_path / "masks", INDEX)
    assert [image["file_name"] for image in content["images"]] == ["a.PNG"]
    assert [entry["area"] for entry in content["annotations"]] == [100]


def test_a_mask_of_too_many_pixels_is_refused_by_the_setting(tmp_path):
    picture(tmp_path, "a.png")
    save(tmp_path / "masks/a.png", square((200, 300)))
    with pytest.raises(
        ValueError, match=r"masks/a\.png: cannot be read as a mask: it has 0\.1 mega.*max_megapixels=0\.03"
    ):
        convert_masks(tmp_path / "images", tmp_path / "masks", MaskReading("index", max_megapixels=0.03))
