from __future__ import annotations

import logging
import multiprocessing
import pickle
from dataclasses import replace

import lightning
import numpy as np
import pytest
import torch
from coco_records import annotation, image
from PIL import Image
from torch.utils.data import DataLoader

from r3cnn.batch import Batch
from r3cnn.cli.errors import message_for_user
from r3cnn.data.checks import AnnotationError
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.loading import ImageError, collate
from r3cnn.data.samplers import Draw
from r3cnn.data.split import Split

SETTINGS = {
    "classes": ["dog", "cat"],
    "batch_size": 2,
    "eval_batch_size": 2,
    "image_size": [60, 100],
    "workers": 0,
    "seed": 0,
    "flip": 0.5,
    "on_bad_annotation": "error",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
}


@pytest.fixture
def split(write_coco):
    """Eight images of 60 x 80, the last one without an object."""
    annotations = [annotation(i, image_id=i) for i in range(1, 8)]
    file = write_coco([image(i) for i in range(1, 9)], annotations)
    return Split(images="images", annotations=file.name)


@pytest.fixture
def make(tmp_path, split):
    def build(**changes) -> CocoDataModule:
        return CocoDataModule(**{"root": tmp_path, "train": split, "val": split, **SETTINGS} | changes)

    return build


def assert_equal(first: Batch, second: Batch):
    assert first.image_ids == second.image_ids
    assert torch.equal(first.pixels, second.pixels)
    for one, other in zip(first.targets, second.targets, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.masks.pixels, other.masks.pixels)


def test_classes_are_text_in_composed_letters_however_they_are_written(make):
    assert make(classes=[1, "e\u0301"]).classes == ("1", "\u00e9")


def test_batches_carry_images_with_boxes_and_masks_that_agree(make):
    batches = list(make(batch_size=4).train_dataloader())
    assert len(batches) == 2
    assert batches[0].canvas == (64, 96)
    assert len(batches[0].images) == 4
    for batch in batches:
        for target, image_id in zip(batch.targets, batch.image_ids, strict=True):
            assert len(target) == (0 if image_id == 8 else 1)
            for box, mask in zip(target.boxes.int().tolist(), target.masks.to_dense(), strict=True):
                x1, y1, x2, y2 = box
                assert mask[y1:y2, x1:x2].all()
                assert mask.sum() == 400


def test_a_mirrored_image_has_its_object_where_its_pixels_went(make):
    data = make(flip=1.0)
    mirrored, straight = data.train_set[Draw(0, 0)], data.val_set[Draw(0, 0)]
    assert torch.equal(mirrored.image, straight.image.flip(-1))
    assert straight.target.boxes.tolist() == [[10, 20, 30, 40]]
    assert mirrored.target.boxes.tolist() == [[50, 20, 70, 40]]
    assert mirrored.target.masks.to_dense()[0, 20:40, 50:70].all()


def test_augmentation_is_a_function_of_seed_epoch_and_image(make):
    def flips(data, epoch):
        return [bool(data.train_set[Draw(epoch, i)].target.boxes[0, 0] == 50) for i in range(7)]

    data = make()
    first = flips(data, 0)
    assert flips(make(), 0) == first
    assert len({tuple(flips(make(seed=seed), epoch)) for seed in range(3) for epoch in range(3)}) > 5
    assert flips(data, 0) == first


def test_crowds_are_handed_out_for_training_when_they_are_to_be_ignored(make, write_coco):
    crowd = annotation(2, iscrowd=1, bbox=[20, 10, 40, 20])
    write_coco([image(1)], [annotation(1), crowd])
    boxes = {kind: make(crowd=kind, flip=0.0).train_set[Draw(0, 0)].target.crowds for kind in ("drop", "ignore")}
    assert boxes["drop"].shape == (0, 4)
    assert boxes["ignore"].tolist() == [[20, 10, 60, 30]]
    data = make(crowd="ignore", flip=0.0)
    assert next(iter(data.train_dataloader())).targets[0].crowds.tolist() == [[20, 10, 60, 30]]


@pytest.mark.parametrize(("crowd", "boxes"), [("drop", []), ("ignore", [[20, 10, 60, 30]])])
def test_validation_images_hand_out_the_crowds_that_training_ignores(make, write_coco, crowd, boxes):
    write_coco([image(1)], [annotation(1), annotation(2, iscrowd=1, bbox=[20, 10, 40, 20])])
    (batch,) = make(crowd=crowd).val_dataloader()
    assert batch.targets[0].crowds.tolist() == boxes


def test_evaluation_images_are_never_mirrored_and_come_in_order(make):
    batches = list(make().val_dataloader())
    assert [i for batch in batches for i in batch.image_ids] == list(range(1, 9))
    assert all(target.boxes[0, 0] == 10 for batch in batches for target in batch.targets if len(target))


def test_two_workers_load_what_the_main_process_loads(make):
    alone, shared = list(make().train_dataloader()), list(make(workers=2).train_dataloader())
    assert len(alone) == len(shared) == 4
    for one, other in zip(alone, shared, strict=True):
        assert_equal(one, other)


def test_workers_share_the_index_whatever_way_of_starting_processes_is_the_default(make, monkeypatch):
    def refuse(self):
        raise AssertionError("the data set is copied into a worker")

    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("forkserver", force=True)  # the default from Python 3.14 on
    try:
        expected = list(make().val_dataloader())
        monkeypatch.setattr(CocoDataset, "__reduce__", refuse)
        loaded = list(make(workers=1).val_dataloader())
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert [batch.image_ids for batch in loaded] == [batch.image_ids for batch in expected]


def test_a_spawned_worker_gets_the_data_set(make):
    data_set = make().val_set
    assert len(pickle.loads(pickle.dumps(data_set))) == 8
    draws = [[Draw(0, 0), Draw(0, 1)]]
    loader = DataLoader(
        data_set, batch_sampler=draws, collate_fn=collate, num_workers=1, multiprocessing_context="spawn"
    )
    assert_equal(next(iter(loader)), collate([data_set[draw] for draw in draws[0]]))


def test_a_position_set_before_or_after_the_loader_is_made_is_where_it_starts(make):
    data = make()
    loader = data.train_dataloader()
    data.set_position(2, 0)
    whole = list(loader)
    data.set_position(2, 3)
    assert_equal(next(iter(loader)), whole[3])
    resumed = make()
    resumed.set_position(2, 3)
    assert_equal(next(iter(resumed.train_dataloader())), whole[3])


def test_images_without_objects_or_below_a_size_are_left_out_on_request(make, split):
    assert make(train=replace(split, keep_empty=False)).train_set.image_ids == tuple(range(1, 8))
    assert len(make(train=replace(split, min_side=60)).train_set) == 8
    with pytest.raises(ValueError, match="none of its 8 images is left to use"):
        make(train=replace(split, min_side=61)).setup()


def test_a_subset_is_the_first_images_or_the_named_ones(make, split):
    data = make(train=replace(split, limit=3), val=replace(split, image_ids=[5, 2]))
    assert data.train_set.image_ids == (1, 2, 3)
    assert data.val_set.image_ids == (2, 5)
    with pytest.raises(ValueError, match=r"image_ids holds \[99\], which are not in"):
        make(train=replace(split, image_ids=[1, 99])).setup()


def test_nothing_is_read_before_it_is_needed(make, split):
    data = make(val=replace(split, annotations="nowhere.json"))
    assert data.val_annotations.name == "nowhere.json"
    with pytest.raises(AnnotationError, match="no such annotation file"):
        data.setup("fit")


def test_the_files_are_prepared_once_before_they_are_read(make, tmp_path):
    file = tmp_path / "coco.json"
    content = file.read_text()
    file.unlink()
    calls = []

    def prepare():
        calls.append(file.write_text(content))

    data = make(prepare=prepare)
    assert data.category_ids == (7, 3)
    data.prepare_data()  # what Lightning does
    data.setup("fit")
    assert len(calls) == 1


def test_labels_go_by_name_where_the_validation_file_numbers_its_categories_in_its_own_way(make, split, write_coco):
    own = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    write_coco([image(1)], [annotation(1, category_id=2)], categories=own, name="val.json")
    data = make(val=replace(split, annotations="val.json"))
    data.setup("fit")
    assert data.category_ids == (2, 1)
    assert data.train_set[Draw(0, 0)].target.labels.tolist() == data.val_set[Draw(0, 0)].target.labels.tolist() == [0]


def test_only_the_validation_file_may_lack_a_class(make, split, write_coco):
    write_coco([image(1)], [annotation(1)], categories=[{"id": 7, "name": "dog"}], name="dogs.json")
    dogs = replace(split, annotations="dogs.json")
    data = make(val=dogs)
    data.setup("fit")
    assert data.category_ids == (7, 8)
    with pytest.raises(AnnotationError, match=r"dogs\.json: .*missing in the file: \['cat'\]"):
        make(train=dogs).setup("fit")


def test_missing_images_are_named_or_left_out_and_counted_on_request(make, split, tmp_path, caplog):
    for number in (2, 5):
        (tmp_path / f"images/{number}.png").unlink()
    with pytest.raises(ImageError, match=r"its image '2\.png' is not in .* \(and 1 more missing images\)"):
        make().setup()
    data = make(on_bad_annotation="skip", train=replace(split, limit=4))
    data.setup("fit")
    assert (data.train_set.image_ids, data.val_set.image_ids) == ((1, 3, 4), (1, 3, 4, 6, 7, 8))
    assert "left out 2 of 8 images" in caplog.text
    with pytest.raises(ImageError, match="is no folder"):
        make(on_bad_annotation="skip", val=replace(split, images="elsewhere")).setup()


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_left_out_and_told_on_request(make, tmp_path, caplog, workers):
    whole = (tmp_path / "images/3.png").read_bytes()
    (tmp_path / "images/3.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "images/5.png").write_bytes(b"broken")
    Image.fromarray(np.zeros((80, 60, 3), dtype=np.uint8)).save(tmp_path / "images/6.png")
    data = make(on_bad_annotation="skip", workers=workers)
    assert data.num_batches(1) == (4, 4)
    assert not caplog.text  # what many jobs are checked by decodes no image
    data.setup("fit")
    assert data.val_set.image_ids == (1, 2, 4, 7, 8)
    assert "left out 3 of 8 images that cannot be read, first: " in caplog.text
    assert [i for batch in data.val_dataloader() for i in batch.image_ids] == [1, 2, 4, 7, 8]
    seen = [i for batch in data.train_dataloader() for i in batch.image_ids]
    assert sorted(seen) == [1, 2, 4, 4, 7, 7, 7, 8]  # the next one stands in, so that no step is missing
    assert workers or caplog.text.count("using the next one") == 3
    for number in range(1, 9):
        (tmp_path / f"images/{number}.png").write_bytes(b"broken")
    for loader in ("train_dataloader", "val_dataloader"):
        with pytest.raises(ImageError, match="cannot be read"):
            list(getattr(make(on_bad_annotation="skip"), loader)())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iscrowd": 1}, "7 crowds"),
        ({"bbox": [0.1, 0.2, 0.3, 0.3]}, "7 with a box side below 1 px; 7 of 7 boxes lie between 0 and 1: normalised"),
        ({"area": 0, "segmentation": [[10, 20, 30, 20, 10, 20]]}, "7 with an area of 0 and a mask without a pixel"),
    ],
)
def test_a_training_set_without_anything_to_learn_from_is_refused_with_the_reason(make, write_coco, changes, reason):
    records = [annotation(i, image_id=i, **changes) for i in range(1, 8)]
    write_coco([image(i) for i in range(1, 9)], records)
    with pytest.raises(AnnotationError, match=f"nothing to learn from .*: 0 objects in 8 images; left out: {reason}"):
        make().setup("fit")
    make().setup("validate")  # its AP is undefined, which is normal


def test_training_starts_with_a_line_of_what_it_learns_from_and_what_it_leaves_out(make, write_coco, caplog):
    write_coco([image(1), image(2)], [annotation(1), annotation(2, iscrowd=1), annotation(3, image_id=2, area=0)])
    with caplog.at_level(logging.INFO):
        make().setup("fit")
    assert "training on 2 images; in the file: 2 objects in 2 images; left out: 1 crowds (iscrowd 1)" in caplog.text


def test_class_names_that_yaml_reads_as_numbers_are_text(make, write_coco):
    write_coco([image(1)], [annotation(1)], categories=[{"id": 3, "name": 1}, {"id": 7, "name": "2"}])
    data = make(classes=[2, 1])
    assert data.classes == ("2", "1")
    assert data.train_set[Draw(0, 0)].target.labels.tolist() == [0]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(make, tmp_path, workers):
    (tmp_path / "images" / "4.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"images/4\.png: cannot be read as an image") as error:
        list(make(workers=workers).val_dataloader())
    message = str(message_for_user(error.value))
    assert message.startswith(f"{tmp_path}/images/4.png: cannot be read as an image: unknown image format; ")
    assert message.endswith("data.on_bad_annotation=skip leaves them out")


def test_grey_values_are_scaled_as_the_data_set_says_and_a_range_that_wastes_them_is_told_at_set_up(
    make, tmp_path, caplog
):
    for number in range(1, 9):
        pixels = np.linspace(0, 4095, 60 * 80).reshape(60, 80).astype(np.uint16)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    levels = [
        len(make(image_range=image_range).val_set[Draw(0, 0)].image.unique()) for image_range in (None, [0, 4095])
    ]
    assert levels == [17, 256]
    (warning,) = caplog.messages
    assert "1.png has grey values from 0 to 4095, which become 17 of 256 levels: data.image_range=[0,4095]" in warning


def test_an_image_larger_than_max_megapixels_is_refused_at_set_up(make):
    with pytest.raises(ImageError, match=r"images/1\.png: .*max_megapixels=0\.001 are the most"):
        make(max_megapixels=0.001).setup()


def test_an_image_of_another_size_than_annotated_is_named(make, tmp_path):
    Image.fromarray(np.zeros((80, 60, 3), dtype=np.uint8)).save(tmp_path / "images" / "4.png")
    with pytest.raises(ImageError, match=r"4\.png: is 80 px high and 60 px wide .* says 60 and 80"):
        list(make().val_dataloader())


def test_a_wrong_image_folder_is_noticed_at_set_up(make, split):
    with pytest.raises(
        ImageError, match=r"coco\.json: its image '1\.png' is not in .*elsewhere, which is no folder \(and 7 more"
    ):
        make(train=replace(split, images="elsewhere")).setup()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch_size": 0}, "batch_size must be in"),
        ({"eval_batch_size": 0}, "eval_batch_size must be in"),
        ({"workers": -1}, "workers must be in"),
        ({"seed": -1}, "seed must be in"),
        ({"image_size": [1333, 800]}, "short, long"),
        ({"flip": 1.5}, "flip must be in"),
        ({"mean": [1.0]}, "mean is"),
        ({"std": [1.0, 0.0, 1.0]}, "std must be in"),
        ({"classes": []}, "classes is"),
        ({"classes": ["dog", "dog"]}, "classes is"),
        ({"classes": [1, "1"]}, "classes is"),
        ({"max_overhang": -1}, "max_overhang must be in"),
    ],
)
def test_a_setting_out_of_range_is_named(make, changes, reason):
    with pytest.raises(ValueError, match=reason):
        make(**changes)


def test_a_misspelt_setting_is_an_error(make):
    with pytest.raises(TypeError, match="batchsize"):
        make(batchsize=2)


def test_a_rank_without_an_evaluation_batch_of_its_own_repeats_one(make):
    class Trainer:
        global_rank, world_size, limit_val_batches = 4, 5, 1.0

    data = make()
    data.trainer = Trainer()
    assert [batch.image_ids for batch in data.val_dataloader()] == [(7, 8)]


def test_the_trainer_says_whether_every_epoch_has_the_first_batches(make):
    def draws(data, epoch):
        data.set_position(epoch, 0)
        return list(data.train_dataloader().batch_sampler)

    plain, overfit = make(batch_size=2), make(batch_size=2)
    overfit.trainer = lightning.Trainer(overfit_batches=1, accelerator="cpu", logger=False, barebones=True)
    assert draws(overfit, 5) == draws(overfit, 0) == draws(plain, 0) != draws(plain, 5)


def test_without_validation_images_ids_are_those_of_the_training_file_and_only_who_needs_images_is_told(make):
    data = make(val=None)
    data.setup("fit")
    assert data.category_ids == data.train_set.annotations.category_ids
    with pytest.raises(ValueError, match=r"data\.val is null"):
        data.val_dataloader()
