from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from r3cnn.data.nuclei import convert_nuclei, main
from r3cnn.data.reading import read_annotations


def write_image(folder, name, masks):
    (folder / name / "images").mkdir(parents=True)
    (folder / name / "masks").mkdir()
    pixels = np.full((20, 30, 4), (50, 60, 70, 255), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / name / "images" / f"{name}.png")
    for i, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / name / "masks" / f"{i}.png")


@pytest.fixture
def source(tmp_path):
    mask = np.zeros((20, 30), dtype=bool)
    mask[4:9, 10:17] = True
    for i in range(20):
        write_image(tmp_path / "stage1_train", f"image{i}", [mask, np.zeros_like(mask), mask.copy()[:, ::-1]])
    return tmp_path / "stage1_train"


def test_folders_of_masks_become_two_coco_files_of_images_in_one_folder(source, tmp_path):
    main([str(source), str(tmp_path / "nuclei")])
    read = {}
    for split in ("train", "val"):
        read[split] = read_annotations(tmp_path / "nuclei" / "annotations" / f"instances_{split}.json", ["nucleus"])
        assert all((tmp_path / "nuclei" / "images" / name).is_file() for name in read[split].file_names)
    assert len(read["train"]) + len(read["val"]) == 20
    assert 1 <= len(read["val"]) <= 9
    assert not set(read["train"].file_names) & set(read["val"].file_names)
    assert read["val"].objects(0).boxes.tolist() == [[10, 4, 17, 9], [13, 4, 20, 9]]


def test_an_image_stays_in_its_set_when_others_come(source, tmp_path):
    convert_nuclei(source, tmp_path / "before")
    for i in range(20, 30):
        write_image(source, f"image{i}", [])
    convert_nuclei(source, tmp_path / "after")
    names = []
    for folder in ("before", "after"):
        content = json.loads((tmp_path / folder / "annotations" / "instances_val.json").read_text())
        names.append({entry["file_name"] for entry in content["images"]})
    assert names[0] <= names[1]


def test_what_macos_leaves_beside_images_and_masks_is_no_image(source, tmp_path):
    convert_nuclei(source, tmp_path / "before")
    for folder in ("images", "masks"):
        (source / "image3" / folder / "._image3.png").write_bytes(b"no image")
    convert_nuclei(source, tmp_path / "after")
    for split in ("train", "val"):
        before, after = (tmp_path / run / f"annotations/instances_{split}.json" for run in ("before", "after"))
        assert before.read_bytes() == after.read_bytes()


def test_a_mask_of_another_size_is_named(source, tmp_path):
    Image.fromarray(np.ones((5, 5), dtype=np.uint8)).save(source / "image3" / "masks" / "7.png")
    with pytest.raises(ValueError, match=r"7\.png is 5 px high"):
        convert_nuclei(source, tmp_path / "nuclei")


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds 0 folders"):
        convert_nuclei(tmp_path, tmp_path / "nuclei")
