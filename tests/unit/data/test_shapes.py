from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from r3cnn.data.reading import read_annotations
from r3cnn.data.scenes import CLASSES
from r3cnn.data.shapes import write_shapes


@pytest.fixture(scope="module")
def content(shapes_root):
    return json.loads((shapes_root / "annotations" / "instances_train.json").read_text())


def objects(content):
    return [entry for entry in content["annotations"] if not entry["iscrowd"]]


def test_images_are_of_varying_size_and_at_least_128_px(content, shapes_root):
    sizes = {(entry["height"], entry["width"]) for entry in content["images"]}
    assert len(sizes) > 10
    assert min(min(size) for size in sizes) >= 128
    for entry in content["images"]:
        with Image.open(shapes_root / "train" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])


def test_images_hold_two_to_eight_objects_or_none(content):
    counts = Counter(entry["image_id"] for entry in objects(content))
    assert min(counts.values()) >= 2
    assert max(counts.values()) <= 8
    assert 0 < len(content["images"]) - len(counts) < 5


def test_objects_are_12_to_64_px_and_of_three_classes(content):
    boxes = np.array([entry["bbox"] for entry in objects(content)])
    assert boxes[:, 2:].min() >= 12
    assert boxes[:, 2:].max() <= 65
    assert set(Counter(entry["category_id"] for entry in objects(content))) == {1, 2, 3}


def test_a_fifth_of_the_objects_is_hidden_in_part_and_annotated_by_what_is_visible(content):
    hidden = np.array([entry["hidden"] for entry in objects(content)])
    assert (hidden > 0.05).mean() >= 0.2
    assert hidden.max() <= 0.6
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in content["images"]}
    seen = {image_id: np.zeros(size, dtype=int) for image_id, size in sizes.items()}
    for entry in content["annotations"]:
        runs = entry["segmentation"]
        if isinstance(runs, list) or isinstance(runs["counts"], list):
            runs = coco_mask.frPyObjects(runs, *sizes[entry["image_id"]])
        mask = coco_mask.decode(runs[0] if isinstance(runs, list) else runs)
        assert mask.sum() == entry["area"]
        seen[entry["image_id"]] += mask
    assert max(count.max() for count in seen.values()) == 1


def test_polygons_and_run_lengths_and_a_crowd_occur_in_both_sets(shapes_root):
    for split in ("train", "val"):
        entries = json.loads((shapes_root / "annotations" / f"instances_{split}.json").read_text())["annotations"]
        assert {type(entry["segmentation"]) for entry in entries} == {list, dict}
        crowds = [entry for entry in entries if entry["iscrowd"]]
        assert len(crowds) >= 1
        assert isinstance(crowds[0]["segmentation"]["counts"], list)


def test_colour_does_not_tell_the_class(content, shapes_root):
    colors = {category: [] for category in (1, 2, 3)}
    for entry in objects(content):
        with Image.open(shapes_root / "train" / f"{entry['image_id']:05d}.png") as image:
            x, y, width, height = (int(value) for value in entry["bbox"])
            middle = np.asarray(image)[
                y + height // 2 - 2 : y + height // 2 + 2, x + width // 2 - 2 : x + width // 2 + 2
            ]
            colors[entry["category_id"]].append(middle.mean(axis=(0, 1)))
    means = np.array([np.mean(values, axis=0) for values in colors.values()])
    spread = np.mean([np.std(values, axis=0) for values in colors.values()])
    assert np.ptp(means, axis=0).max() < spread


def test_the_files_pass_our_own_checks(shapes_root):
    for split in ("train", "val"):
        read = read_annotations(shapes_root / "annotations" / f"instances_{split}.json", CLASSES)
        assert len(read.rejected) == 0
        assert len(read.labels) > 50


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_shapes(tmp_path / name, train=3, val=3, seed=seed)
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 3 + 3 + 2 + 1
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_shapes_are_written_once(tmp_path):
    write_shapes(tmp_path / "a", train=3, val=3, seed=0)
    before = (tmp_path / "a" / "recipe.json").stat().st_mtime_ns
    write_shapes(tmp_path / "a", train=3, val=3, seed=0)
    assert (tmp_path / "a" / "recipe.json").stat().st_mtime_ns == before


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    write_shapes(tmp_path / "a", train=3, val=3, seed=0)
    with pytest.raises(ValueError, match="remove it, or choose another folder"):
        write_shapes(tmp_path / "a", train=3, val=3, seed=1)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ValueError, match=r"no recipe\.json"):
        write_shapes(tmp_path / "mine", train=3, val=3, seed=0)


def test_numbers_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="train is 0"):
        write_shapes(tmp_path / "a", train=0, val=3, seed=0)
