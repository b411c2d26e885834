from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from r3cnn.reporting.drawing import Mark, draw_marks, instance_color, iou_color, text_color
from r3cnn.reporting.figures import (
    best_ious,
    draw_loop_strip,
    draw_predictions,
    overlay,
    prediction_marks,
    truth_marks,
)
from r3cnn.structures import Detections, InstanceMasks, Target

IMAGE = torch.zeros(3, 40, 60, dtype=torch.uint8)
NAMES = ("disc", "star")


def found(*boxes: tuple[float, float, float, float], scores: tuple[float, ...]) -> Detections:
    return Detections(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        masks=torch.ones(len(boxes), 28, 28),
        mask_scores=torch.tensor(scores),
    )


def truth(*boxes: tuple[int, int, int, int]) -> Target:
    crops = [torch.ones(y2 - y1, x2 - x1, dtype=torch.uint8) for x1, y1, x2, y2 in boxes]
    masks = InstanceMasks.from_windows(crops, [(x1, y1) for x1, y1, _, _ in boxes], (64, 64))
    labels = torch.ones(len(boxes), dtype=torch.int64)
    return Target(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels, masks)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_predictions_below_the_threshold_are_left_out_and_the_best_comes_first() -> None:
    detections = found((0, 0, 10, 10), (20, 5, 30, 25), (5, 5, 9, 9), scores=(0.6, 0.9, 0.4))
    marks = prediction_marks(detections, (40, 60), NAMES, 0.5)
    assert [mark.text for mark in marks] == ["disc 0.90", "disc 0.60"]
    assert marks[0].corner == (20, 5)
    assert marks[0].mask is not None
    assert marks[0].mask.shape == (20, 10)
    assert marks[0].mask.all()


def test_a_single_class_is_not_named() -> None:
    assert prediction_marks(found((0, 0, 10, 10), scores=(0.6,)), (40, 60), ("cell",), 0.5)[0].text == "0.60"
    assert truth_marks(Target(torch.zeros(1, 4), torch.tensor([0]), truth((0, 0, 5, 5)).masks), ("cell",))[0].text == ""


def test_ground_truth_keeps_each_mask_in_its_window() -> None:
    marks = truth_marks(truth((1, 2, 5, 10), (20, 20, 30, 24)), NAMES)
    assert [(mark.corner, mark.mask.shape) for mark in marks] == [((1, 2), (8, 4)), ((20, 20), (4, 10))]


def test_an_overlay_has_the_size_of_the_image_and_changes_only_the_object(tmp_path: Path) -> None:
    overlay(IMAGE, found((20.0, 20.0, 40.0, 36.0), scores=(0.9,)), ("cell",), tmp_path / "picture.png")
    picture = pixels(tmp_path / "picture.png")
    assert picture.shape == (40, 60, 3)
    assert picture[30, 30].any()
    assert not picture[:3].any()
    assert not picture[:, :18].any()


def test_an_overlay_is_written_as_jpeg_too(tmp_path: Path) -> None:
    overlay(IMAGE, found(scores=()), NAMES, tmp_path / "deep" / "picture.jpg")
    assert Image.open(tmp_path / "deep" / "picture.jpg").format == "JPEG"


def test_an_object_that_was_found_has_the_same_colour_on_both_sides(tmp_path: Path) -> None:
    target = truth((0, 0, 20, 20), (30, 10, 50, 30))
    detections = found((31, 10, 50, 30), (0, 0, 20, 19), scores=(0.9, 0.8))
    draw_predictions(IMAGE, detections, target, NAMES, tmp_path / "picture.png")
    picture = pixels(tmp_path / "picture.png")
    half = picture.shape[1] // 2
    scale = (half - 24) / 60  # panels with margins of 16, 16 and 16 pixels
    top = picture.shape[0] - 16 - round(40 * scale)
    colors = {side: picture[top + round(20 * scale), side + round(40 * scale)].tolist() for side in (16, half + 8)}
    assert len({tuple(color) for color in colors.values()}) == 1
    assert sum(colors[16]) > 0


@pytest.mark.parametrize("loops", [1, 3])
def test_a_strip_has_one_panel_per_loop(tmp_path: Path, loops: int) -> None:
    detections = [found((0, 0, 20, 20), scores=(0.9,))] * loops
    draw_loop_strip(IMAGE, detections, truth((0, 0, 20, 20)), tmp_path / "strip.png")
    assert Image.open(tmp_path / "strip.png").width == loops * (560 + 16) + 16


def test_nothing_found_and_nothing_there_is_drawn_all_the_same(tmp_path: Path) -> None:
    draw_loop_strip(IMAGE, [found(scores=())] * 2, truth(), tmp_path / "strip.png")
    draw_predictions(IMAGE, found(scores=()), truth(), NAMES, tmp_path / "pair.png")
    assert pixels(tmp_path / "strip.png").min() == 0
    assert pixels(tmp_path / "pair.png").min() == 0


def test_the_best_iou_of_a_box_is_hand_computed() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [50.0, 50.0, 60.0, 60.0]])
    assert best_ious(boxes, torch.tensor([[0.0, 0.0, 10.0, 10.0]])).tolist() == [1.0, 0.5, 0.0]
    assert best_ious(boxes, torch.zeros(0, 4)).tolist() == [0.0, 0.0, 0.0]


def test_iou_colours_run_from_red_to_blue() -> None:
    assert iou_color(0.0) == iou_color(0.5) == (220, 40, 40)
    assert iou_color(1.0) == (40, 180, 255)


def test_neighbouring_instances_have_colours_far_apart() -> None:
    colors = np.array([instance_color(number) for number in range(40)], dtype=float)
    assert np.abs(colors[1:] - colors[:-1]).max(axis=1).min() > 60


def test_text_is_black_on_light_and_white_on_dark() -> None:
    assert text_color((255, 255, 80)) == (0, 0, 0)
    assert text_color((30, 30, 160)) == (255, 255, 255)


def test_labels_stay_inside_the_picture() -> None:
    blank = Image.new("RGB", (200, 100))
    plain = np.asarray(draw_marks(blank, [Mark((150, 0, 199, 20), (255, 0, 0))]))
    labelled = np.asarray(draw_marks(blank, [Mark((150, 0, 199, 20), (255, 0, 0), "a long label")]))
    assert (labelled[:40] == (255, 0, 0)).all(axis=2).sum() > (plain[:40] == (255, 0, 0)).all(axis=2).sum()
    assert labelled.shape == (100, 200, 3)


def test_images_that_are_not_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image must be \(3, H, W\) uint8, got \(3, 40, 60\) torch.float32"):
        overlay(IMAGE.float(), found(scores=()), NAMES, tmp_path / "picture.png")


def test_a_mask_window_that_reaches_into_the_padding_is_cut_not_squeezed() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:30, 10:20] = True
    picture = np.asarray(
        draw_marks(Image.new("RGB", (60, 40)), [Mark((10, 20, 20, 30), (255, 0, 0), mask=mask)], scale=4)
    )
    rows, columns = picture.any(axis=2).nonzero()
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (80, 120, 40, 80)
