import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from r3cnn.evaluation.recall import average_recall, checked_limits, image_recall, objects_by_image, reached_objects
from r3cnn.evaluation.records import ranked_boxes
from r3cnn.structures import Rois, ScoredRois

LIMITS = (2, 5, 20)


def coco_recall(images: list[tuple[np.ndarray, np.ndarray]], crowds: list[np.ndarray]) -> list[float]:
    """Average recall by pycocotools; images are (boxes, objects), classes drawn at will since none may matter."""
    truth, found = COCO(), COCO()
    rows: tuple[list[dict], list[dict]] = ([], [])
    for number, ((boxes, objects), crowd) in enumerate(zip(images, crowds, strict=True), start=1):
        regions = [(box, 0) for box in objects.tolist()] + [(box, 1) for box in crowd.tolist()]
        for target, entries in zip(rows, (regions, [(box, 0) for box in boxes.tolist()]), strict=True):
            for place, (box, iscrowd) in enumerate(entries):
                one = {"id": len(target) + 1, "image_id": number, "category_id": 1 + place % 2, "iscrowd": iscrowd}
                target.append({**one, "bbox": box, "area": box[2] * box[3], "score": 1 - place / 1000})
    for coco, entries in zip((truth, found), rows, strict=True):
        sets = {"images": [{"id": n + 1} for n in range(len(images))], "categories": [{"id": 1}, {"id": 2}]}
        coco.dataset = {**sets, "annotations": entries}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = COCOeval(truth, found, "bbox")
        evaluator.params.useCats = 0
        evaluator.params.maxDets = list(LIMITS)
        evaluator.evaluate()
        evaluator.accumulate()
    recall = evaluator.eval["recall"][:, 0, 0]  # (T, limits), all sizes
    return [float(np.mean(column)) for column in recall.T]


def boxes_of(generator: np.random.Generator, count: int) -> np.ndarray:
    """Whole numbers in a narrow space, so that ties and full overlaps are common."""
    corners = generator.integers(0, 12, (count, 2))
    return np.concatenate([corners, generator.integers(1, 12, (count, 2))], axis=1).astype(float)


def by_class(objects: np.ndarray) -> np.ndarray:
    return np.concatenate([objects[0::2], objects[1::2]])  # as coco_recall names their classes


@example(seed=1324)  # a box overlaps objects of two classes equally
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_recall_is_what_pycocotools_computes_without_classes(seed: int) -> None:
    generator = np.random.default_rng(seed)
    images, crowds = [], []
    for _ in range(3):
        objects = boxes_of(generator, int(generator.integers(0, 7)))
        near = np.repeat(objects, 2, axis=0) + generator.integers(-1, 2, (2 * len(objects), 4))
        near[:, 2:] = near[:, 2:].clip(min=1)
        boxes = np.concatenate([near, boxes_of(generator, 6)])
        images.append((generator.permutation(boxes), objects))
        crowds.append(boxes_of(generator, 1))
    images[0] = (images[0][0], boxes_of(generator, 3))  # at least one object
    ours = average_recall([image_recall([boxes], by_class(objects), LIMITS) for boxes, objects in images], LIMITS)
    assert list(ours) == ["rpn"]
    assert list(ours["rpn"].values()) == pytest.approx(coco_recall(images, crowds), abs=1e-12)


def test_an_object_is_reached_once_and_by_the_best_boxes_alone() -> None:
    objects = np.array([[0.0, 0, 10, 10], [50, 50, 10, 10]])
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 10, 8]])  # IoU 1, 1 and 0.8
    counts = reached_objects(boxes, objects, (1, 2, 3, 9))
    assert counts[:, 0].tolist() == [1, 1, 2, 2]
    assert counts[3].tolist() == [2] * 7 + [1] * 3  # 0.50 … 0.80, then 0.85 … 0.95


def test_stages_have_names_and_nothing_to_reach_is_undefined() -> None:
    nothing = np.zeros((0, 4))
    empty = image_recall([nothing, nothing], nothing, (1, 2))
    assert average_recall([empty], (1, 2)) == {"rpn": {"ar1": None, "ar2": None}, "1": {"ar1": None, "ar2": None}}
    missed = image_recall([nothing], np.array([[0.0, 0, 5, 5]]), (1,))
    assert average_recall([missed], (1,)) == {"rpn": {"ar1": 0.0}}


def test_crowds_are_no_objects() -> None:
    one = {"image_id": 3, "category_id": 1}
    rows = [{**one, "iscrowd": crowd, "bbox": [0.0, 0.0, 4.0, 4.0 + crowd]} for crowd in (0, 1)]
    assert {key: value.tolist() for key, value in objects_by_image(rows).items()} == {3: [[0.0, 0.0, 4.0, 4.0]]}


def test_boxes_are_ranked_by_score_without_empty_slots_and_in_pixels_of_the_file() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 30, 30], [0, 0, 40, 40]]])
    scored = ScoredRois(Rois(boxes, torch.tensor([[True, True, False, True]])), torch.tensor([[0.1, 0.5, 0.9, 0.3]]))
    found = ranked_boxes(scored, [(100, 100)], [(200, 50)], limit=2)
    assert found[0].tolist() == [[0, 0, 10, 40], [0, 0, 20, 80]]


@pytest.mark.parametrize(("limits", "message"), [([0, 5], "must be in"), ([5, 5], "must ascend"), ([-1], "must be in")])
def test_numbers_of_boxes_that_make_no_sense_are_refused(limits: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_limits(limits)
