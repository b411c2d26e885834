"""The yaml files of conf/data, with the real data sets where there are some."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from r3cnn.data.datamodule import CocoDataModule

CONF = Path(__file__).parents[3] / "conf" / "data"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "_base")
SHARED = {
    *("classes", "batch_size", "eval_batch_size", "image_size", "workers", "seed", "flip"),
    *("on_bad_annotation", "mean", "std"),
}


def load(name, **changes):
    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        data = compose(overrides=[f"+data={name}", "+seed=0"])
    return OmegaConf.merge(OmegaConf.create(OmegaConf.to_container(data)), {"data": changes}).data


def build(name, **changes) -> CocoDataModule:
    return instantiate(load(name, **changes))


def test_the_data_sets_of_the_readme_exist():
    assert NAMES == ["coco", "coco128", "custom", "nuclei", "shapes"]


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_has_the_keys_that_experiments_may_override(name):
    assert set(load(name)) >= SHARED


def test_the_normalisation_and_the_names_of_coco_stand_in_one_place():
    texts = [path.read_text() for path in CONF.glob("*.yaml")]
    for number in ("123.675", "116.28", "103.53", "58.395", "57.12", "57.375", "toothbrush", "giraffe"):
        assert sum(text.count(number) for text in texts) == 1, number
    assert load("coco").classes == load("coco128").classes
    assert all(load(name).mean == load("coco").mean and load(name).std == load("coco").std for name in NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "custom"])
def test_every_data_set_builds_without_reading_a_file(name):
    data = build(name, root="/nowhere")
    assert data.val_annotations.is_relative_to("/nowhere")
    assert len(data.classes) == {"nuclei": 1, "shapes": 3}.get(name, 80)


def test_a_misspelt_key_is_an_error():
    with pytest.raises(InstantiationException, match="bach_size"):
        build("coco", bach_size=3)


def test_a_custom_data_set_asks_for_its_folders_and_files():
    with pytest.raises((MissingMandatoryValue, InstantiationException), match=r"train\.(images|annotations)"):
        build("custom", classes=["a"])


def test_coco128_loads_at_the_paper_s_size(data_root):
    data = build("coco128", root=str(data_root / "coco128"), workers=0, pin_memory=False)
    data.setup()
    assert (len(data.train_set), len(data.val_set)) == (94, 32)
    assert data.category_ids[:12] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13)
    batch = next(iter(data.train_dataloader()))
    assert max(batch.canvas) <= 1344
    assert all(min(size) == 800 or max(size) == 1333 for size in batch.sizes)
    for target, size in zip(batch.targets, batch.sizes, strict=True):
        assert len(target) > 0
        assert (target.boxes[:, 2:] <= torch.tensor([size[1], size[0]])).all()


def test_boxes_of_coco128_lie_around_their_masks(data_root):
    data = build("coco128", root=str(data_root / "coco128"), workers=0, pin_memory=False, image_size=[200, 333])
    errors = []
    for target in (target for batch in data.val_dataloader() for target in batch.targets):
        for box, mask in zip(target.boxes, target.masks.to_dense(), strict=True):
            if mask.any():
                rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
                extent = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                errors.append((box - extent).abs().max())
    assert len(errors) > 200
    # Picking the nearest pixel of an image 2.4 times as large misses parts that are one pixel wide, here 5 px of one.
    assert (torch.stack(errors) <= 2).float().mean() > 0.95
    assert max(errors) < 6


def test_nuclei_load_with_all_their_masks(data_root):
    data = build("nuclei", root=str(data_root / "nuclei"), workers=0)
    assert (len(data.train_set), len(data.val_set)) == (530, 134)
    batch = next(iter(data.val_dataloader()))
    assert all(len(target) == len(target.masks) > 0 for target in batch.targets)
    assert sum(len(target) for target in batch.targets) > 20
