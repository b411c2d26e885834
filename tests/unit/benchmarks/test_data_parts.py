"""The parts of ``bench`` about data, with little work: that they run, and what they compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from r3cnn.benchmarks.data import data_rows, our_loader, torchvision_loader
from r3cnn.benchmarks.index import CLASS_NAMES, index_rows, write_coco_sized
from r3cnn.benchmarks.memory import FLAT, data_sets, own_memory
from r3cnn.data.reading import read_annotations
from r3cnn.data.split import Split


def test_the_drawn_file_is_sound_and_as_long_per_record_as_cocos(tmp_path):
    file = tmp_path / "coco.json"
    write_coco_sized(file, 300, 3000, seed=0)
    index = read_annotations(file, CLASS_NAMES)
    assert len(index) == 300
    assert 2900 < len(index.labels) < 3000  # the others are crowds
    content = json.loads(file.read_text())
    corners = [len(part) / 2 for one in content["annotations"] if not one["iscrowd"] for part in one["segmentation"]]
    assert 20 < sum(corners) / len(index.labels) < 27
    assert 450 < file.stat().st_size / 3000 < 600
    write_coco_sized(tmp_path / "again.json", 300, 3000, seed=0)
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_bench_index_reads_the_same_file_three_ways():
    rows = index_rows(images=400, annotations=3000, repetitions=1, seed=0)
    assert [row.unit for row in rows] == ["s", "MB", "s"]
    assert [row.target for row in rows] == [0.5, 1 / 3, None]
    assert all(row.ours > 0 and row.baseline > 0 for row in rows)


def test_bench_index_reads_a_file_of_cocos_size_no_more_than_twice_by_default():
    conf = Path(__file__).parents[3] / "conf" / "bench.yaml"
    settings = OmegaConf.load(conf).parts.index
    assert (settings.images, settings.annotations, settings.repetitions) == (118287, 860001, 2)


@pytest.fixture
def split(tmp_path):
    """Four noise images with a square each, and one without any."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 60, "width": 80} for i in range(5)]
    square = {"category_id": 1, "iscrowd": 0, "area": 400, "bbox": [10, 20, 20, 20]}
    square["segmentation"] = [[10, 20, 30, 20, 30, 40, 10, 40]]
    content = {"images": images, "annotations": [{"id": i, "image_id": i, **square} for i in range(4)]}
    content["categories"] = [{"id": 1, "name": "square"}]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    for entry in images:
        noise = np.random.default_rng(entry["id"]).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / entry["file_name"])
    return Split(images="", annotations="coco.json", keep_empty=False).below(tmp_path)


@pytest.mark.slow
def test_bench_data_gives_both_sides_the_same_objects(split):
    ours, count = our_loader(split, (60, 100), batch_size=3, seed=0)
    theirs = torchvision_loader(split, (60, 100), batch_size=3, count=count)
    assert count == 4
    assert [len(batch) for batch in ours] == [3, 1]
    assert (
        sum(sum(batch.counts) for batch in ours) == sum(len(one["labels"]) for _, each in theirs for one in each) == 4
    )


def test_bench_data_names_what_is_missing(tmp_path):
    settings = {"images": "a", "annotations": "b.json", "limit": 2, "image_size": [60, 100], "batch_size": 1}
    with pytest.raises(FileNotFoundError, match=r"b\.json: there is no such file; R3CNN_DATA says"):
        data_rows(root=str(tmp_path), **settings, repetitions=1, warmups=0, seed=0)


@pytest.mark.slow
def test_the_memory_of_the_workers_stays_flat_over_three_epochs(tmp_path):
    file = tmp_path / "instances.json"
    # So many that what the workers of pycocotools copy stands out against what they dirty of the tests' own memory.
    write_coco_sized(file, 150, 25_000, seed=0)
    settings = {"epochs": 3, "workers": 2, "batch_size": 10, "seed": 0}
    ours, theirs = data_sets(file)
    memory = own_memory(ours, **settings)
    assert len(memory) == 4  # at the first batch, and after each epoch
    assert max(memory) <= memory[0] * FLAT
    assert memory[-1] < 200e6
    memory = own_memory(theirs, **settings)
    assert memory[-1] > memory[0] * FLAT  # the check can tell
