from __future__ import annotations

import numpy as np
import torch

from r3cnn.reporting.drawing import Mark
from r3cnn.reporting.wandb_media import class_pixels, class_table, loop_table, overlay_of, panel_of
from r3cnn.structures import Detections, InstanceMasks, Target

IMAGE = torch.zeros(3, 40, 60, dtype=torch.uint8)
NAMES = ("disc", "star")
AP = {"ap": 0.5, "ap50": None}


def found(scores: list[float], labels: list[int]) -> Detections:
    boxes = torch.tensor([[10.0 * number, 5, 10.0 * number + 8, 20] for number in range(len(scores))]).reshape(-1, 4)
    masks = torch.ones(len(scores), 28, 28)
    return Detections(boxes, torch.tensor(scores), torch.tensor(labels), masks, torch.tensor(scores))


def truth(label: int) -> Target:
    masks = InstanceMasks.from_windows([torch.ones(10, 20, dtype=torch.uint8)], [(30, 20)], (64, 64))
    return Target(torch.tensor([[30.0, 20, 50, 30]]), torch.tensor([label]), masks)


def test_the_first_of_two_objects_lies_on_top_and_labels_count_from_one() -> None:
    square = np.ones((2, 2), dtype=np.bool_)
    marks = [Mark((1, 1, 3, 3), (0, 0, 0), mask=square, corner=(1, 1)), Mark((0, 0, 2, 2), (0, 0, 0), mask=square)]
    assert class_pixels((3, 3), marks, [0, 4]).tolist() == [[5, 5, 0], [5, 1, 1], [0, 1, 1]]


def test_a_mask_that_reaches_out_of_the_image_is_cut() -> None:
    mark = Mark((2, 2, 5, 5), (0, 0, 0), mask=np.ones((3, 3), dtype=np.bool_), corner=(2, 2))
    assert class_pixels((3, 4), [mark], [0]).tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]


def test_a_panel_pairs_every_box_with_its_own_label_and_score() -> None:
    panel = panel_of(IMAGE, found([0.6, 0.3, 0.9], [0, 0, 1]), truth(1), NAMES, score_threshold=0.5)
    boxes = panel._boxes["found"]._val
    assert [(box["class_id"], round(box["scores"]["score"], 3)) for box in boxes] == [(2, 0.9), (1, 0.6)]
    assert boxes[0]["position"] == {"minX": 20.0, "minY": 5.0, "maxX": 28.0, "maxY": 20.0}
    assert [box["box_caption"] for box in boxes] == ["star 0.90", "disc 0.60"]
    assert panel._boxes["true"]._val[0]["class_id"] == 2


def test_an_image_in_which_nothing_is_found_has_an_empty_panel() -> None:
    panel = panel_of(IMAGE, found([], []), truth(0), NAMES, score_threshold=0.5)
    assert panel._boxes["found"]._val == []
    assert len(panel._boxes["true"]._val) == 1


def test_more_classes_than_a_byte_holds_leave_masks_out_and_boxes_in() -> None:
    names = [f"class {number}" for number in range(300)]
    panel = panel_of(IMAGE, found([0.9], [299]), truth(299), names, score_threshold=0.5)
    assert not panel._masks
    assert panel._boxes["found"]._val[0]["class_id"] == 300


def test_an_overlay_shows_only_what_reaches_the_score() -> None:
    detections = found([0.6], [0])
    assert overlay_of(IMAGE, detections, NAMES, 0.5).getbbox() is not None
    assert overlay_of(IMAGE, detections, NAMES, 0.7).getbbox() is None


def test_small_images_are_enlarged_and_large_ones_are_left_as_they_are() -> None:
    assert overlay_of(IMAGE, found([], []), NAMES, 0.5).size == (560, 373)
    assert overlay_of(torch.zeros(3, 40, 600, dtype=torch.uint8), found([], []), NAMES, 0.5).size == (600, 40)


def test_tables_leave_open_what_is_not_defined() -> None:
    metrics = {
        "box": AP,
        "mask": AP,
        "per_class": {"disc": {"box": 0.25, "mask": None}},
        "loops": {"1": {"box": AP, "mask": AP}},
        "images": {"seen": 1, "total": 1},
    }
    assert class_table(metrics).data == [["disc", 0.25, None]]
    table = loop_table(metrics)
    assert table.columns == ["loop", "box_ap", "box_ap50", "mask_ap", "mask_ap50"]
    assert table.data == [[1, 0.5, None, 0.5, None]]
