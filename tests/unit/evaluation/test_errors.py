"""Error analysis on detections whose errors, and what they cost, can be worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluation_samples import Box, annotation, batch_of, detections, rectangle, write_coco
from hypothesis import given, settings
from hypothesis import strategies as st

from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.evaluation.confusion import confusion_matrix
from r3cnn.evaluation.error_matching import Judged, Overlaps, Verdict, judge, overlaps_of
from r3cnn.evaluation.error_oracle import ap_gains, average_precision, mean_ap
from r3cnn.evaluation.error_report import ErrorSettings, error_report, object_states
from r3cnn.evaluation.ground_truth import Instance, load_ground_truth
from r3cnn.evaluation.results import read_results
from r3cnn.structures import Id

DISC, STAR = 3, 7
HERE: Box = (10.0, 10.0, 20.0, 20.0)
HALF: Box = (10.0, 10.0, 20.0, 9.0)  # IoU 0.45 with HERE
FAR: Box = (80.0, 60.0, 20.0, 20.0)
THERE: Box = (60.0, 20.0, 20.0, 20.0)
SETTINGS = ErrorSettings((0.5, 0.75), 0.1, 0.3, 100)


def found(box: Box, score: float, category: int = DISC) -> Instance:
    return {"image_id": 1, "category_id": category, "bbox": [*box], "score": score, "iscrowd": 0}


def truth(*boxes: Box, category: int = DISC, crowd: bool = False) -> list[Instance]:
    return [{"image_id": 1, "category_id": category, "bbox": [*box], "iscrowd": int(crowd)} for box in boxes]


def overlaps(detected: list[Instance], objects: list[Instance]) -> dict[int, Overlaps]:
    return {1: overlaps_of(detected, objects, "bbox", 100)}


def judged(detected: list[Instance], objects: list[Instance]) -> Judged:
    return judge(overlaps(detected, objects), 0.5, 0.1)


def verdicts(detected: list[Instance], objects: list[Instance]) -> list[str]:
    return [Verdict(value).name for value in judged(detected, objects).verdicts]


@pytest.mark.parametrize(
    ("detection", "verdict"),
    [
        (found(HERE, 0.5), "FOUND"),
        (found(HERE, 0.5, STAR), "CLS"),
        (found(HALF, 0.5), "LOC"),
        (found(HALF, 0.5, STAR), "BOTH"),
        (found(FAR, 0.5), "BKG"),
    ],
)
def test_a_detection_alone_is_right_or_wrong_in_one_way(detection: Instance, verdict: str) -> None:
    assert verdicts([detection], truth(HERE)) == [verdict]


def test_of_two_detections_of_an_object_the_worse_is_a_duplicate() -> None:
    assert verdicts([found(HERE, 0.5), found(HERE, 0.9)], truth(HERE)) == ["FOUND", "DUPE"]
    assert judged([found(HERE, 0.5), found(HERE, 0.9)], truth(HERE)).scores.tolist() == [0.9, 0.5]


def test_an_image_without_objects_holds_background_alone() -> None:
    assert verdicts([found(HERE, 0.5), found(FAR, 0.4, STAR)], []) == ["BKG", "BKG"]


def test_a_detection_in_a_crowd_of_its_class_is_neither_right_nor_wrong() -> None:
    crowd = truth((0.0, 0.0, 100.0, 90.0), crowd=True)
    assert verdicts([found(FAR, 0.5), found(FAR, 0.4, STAR)], truth(HERE) + crowd) == ["IGNORED", "BKG"]


def gains(detected: list[Instance], objects: list[Instance]) -> tuple[float | None, dict[str, float]]:
    """AP, and what is gained without each kind of error, without those that gain nothing."""
    result = judged(detected, objects)
    found = {kind: round(gain, 9) for kind, gain in ap_gains(result).items() if gain}
    return mean_ap(result), found


def test_a_wrong_class_costs_the_object_its_whole_class() -> None:
    # Two objects of one class; one is found (recall 1/2: 51 of 101 levels), the other has the wrong name.
    base, gained = gains([found(HERE, 0.9), found(FAR, 0.8, STAR)], truth(HERE, FAR))
    assert base == pytest.approx(51 / 101)
    assert gained == {"cls": round(50 / 101, 9), "false_negatives": round(50 / 101, 9)}


def test_a_wrong_place_is_put_right_with_the_score_that_it_has() -> None:
    # Without the error at score .9: precision 1 up to recall 1/2; put right: both found at once.
    base, gained = gains([found(HALF, 0.9), found(FAR, 0.8)], truth(HERE, FAR))
    assert base == pytest.approx(51 / 101 / 2)
    assert gained["loc"] == pytest.approx(1 - 51 / 101 / 2)
    assert gained["false_positives"] == pytest.approx(51 / 101 / 2)
    assert gained["false_negatives"] == pytest.approx(1 / 2 - 51 / 101 / 2)
    assert set(gained) == {"loc", "false_positives", "false_negatives"}


def test_of_several_errors_at_one_object_only_the_best_is_put_right() -> None:
    # Put right, the better one counts and the other is dropped: all is well.
    base, gained = gains([found(HALF, 0.9), found(HALF, 0.8)], truth(HERE))
    assert base == 0
    assert gained["loc"] == pytest.approx(1)
    # If the better one has the wrong class, putting places right drops the other and leaves the object missed.
    _, gained = gains([found(HERE, 0.9, STAR), found(HALF, 0.8)], truth(HERE))
    assert "loc" not in gained
    assert gained["cls"] == pytest.approx(1)


def test_an_error_at_an_object_that_was_found_is_dropped() -> None:
    base, gained = gains([found(HALF, 0.9), found(HERE, 0.8)], truth(HERE))
    assert base == pytest.approx(1 / 2)
    assert gained == {"loc": pytest.approx(1 / 2), "false_positives": pytest.approx(1 / 2)}


@pytest.mark.parametrize(("kind", "wrong"), [("both", found(HALF, 0.9, STAR)), ("bkg", found(THERE, 0.9, STAR))])
def test_detections_that_are_about_no_object_are_dropped(kind: str, wrong: Instance) -> None:
    objects = truth(HERE) + truth(FAR, category=STAR)
    base, gained = gains([wrong, found(HERE, 0.8), found(FAR, 0.7, STAR)], objects)
    assert base == pytest.approx((1 + 1 / 2) / 2)
    assert gained == {kind: pytest.approx(1 / 4), "false_positives": pytest.approx(1 / 4)}


def test_duplicates_are_dropped() -> None:
    base, gained = gains([found(HERE, 0.9), found(HERE, 0.8), found(FAR, 0.7)], truth(HERE, FAR))
    assert base == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert gained == {"dupe": pytest.approx(1 - base, abs=1e-8), "false_positives": pytest.approx(1 - base, abs=1e-8)}


def test_missed_objects_no_longer_count() -> None:
    base, gained = gains([found(HERE, 0.9)], truth(HERE, FAR))
    assert base == pytest.approx(51 / 101)
    assert gained == {kind: pytest.approx(50 / 101, abs=1e-8) for kind in ("miss", "false_negatives")}


def test_perfect_detections_gain_nothing_and_without_objects_nothing_is_defined() -> None:
    assert gains([found(HERE, 0.9)], truth(HERE)) == (1.0, {})
    empty = judged([found(HERE, 0.9)], [])
    assert mean_ap(empty) is None
    assert set(ap_gains(empty).values()) == {None}


def test_average_precision_without_objects_is_bad_only_where_something_was_found() -> None:
    assert average_precision(np.array([]), np.array([], dtype=bool), 0) == 1
    assert average_precision(np.array([0.5]), np.array([False]), 0) == 0
    assert average_precision(np.array([]), np.array([], dtype=bool), 3) == 0


def test_every_object_has_one_state() -> None:
    objects = truth(HERE, THERE, FAR) + truth((10.0, 60.0, 20.0, 20.0), category=STAR)
    detected = [found(HERE, 0.9), found((60.0, 20.0, 20.0, 9.0), 0.5), found((10.0, 60.0, 20.0, 20.0), 0.4)]
    assert object_states(judged(detected, objects)).tolist() == ["found", "loc", "missed", "cls"]


def test_the_confusion_matrix_pairs_objects_and_detections_whatever_their_class() -> None:
    objects = truth(HERE, THERE) + truth(FAR, category=STAR) + truth((0.0, 60.0, 60.0, 40.0), crowd=True)
    detected = [
        found(HERE, 0.9, STAR),
        found(HERE, 0.8),  # its object is taken
        found(FAR, 0.7, STAR),
        found(THERE, 0.1),  # too low a score
        found((10.0, 70.0, 20.0, 20.0), 0.9),  # in the crowd
    ]
    matrix = confusion_matrix(overlaps(detected, objects), [DISC, STAR], 0.5, score_threshold=0.3)
    assert matrix.tolist() == [[0, 1, 1], [0, 1, 0], [1, 0, 0]]


places = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(8, 40), st.integers(8, 40))
categories = st.sampled_from([DISC, STAR])
drawn_objects = st.lists(st.tuples(places, categories, st.booleans()), min_size=1, max_size=8)
drawn_detections = st.lists(st.tuples(places, categories, st.integers(0, 40)), max_size=12)


@settings(max_examples=40)
@given(objects=drawn_objects, detected=drawn_detections)
def test_the_ap_that_errors_are_taken_from_is_cocos_own(
    tmp_path_factory: pytest.TempPathFactory, objects: list[tuple], detected: list[tuple]
) -> None:
    folder = tmp_path_factory.mktemp("coco")
    rows = [
        annotation(number, 1 + number % 2, category, box, iscrowd=int(crowd), segmentation=rectangle(box))
        for number, (box, category, crowd) in enumerate(objects, start=1)
    ]
    path = write_coco(folder, rows, image_ids=(1, 2))
    metric = CocoAP(path, (DISC, STAR))
    for image_id in (1, 2):
        mine = [(box, score / 40, (DISC, STAR).index(key)) for box, key, score in detected[image_id - 1 :: 2]]
        metric.update(batch_of([image_id]), [[detections(sorted(mine, key=lambda one: -one[1]))]])
    result = metric.compute()
    (folder / "detections.json").write_text(json.dumps([*result.entries(0)]))
    ground = load_ground_truth(path)
    loops = {kind: [read_results(folder / "detections.json", ground, kind)] for kind in ("bbox", "segm")}
    report = error_report(ground, loops["bbox"], loops["segm"], [1, 2], SETTINGS)
    for kind, name in (("box", "box"), ("mask", "mask")):
        for iou in ("0.5", "0.75"):
            expected = result.metrics[name][f"ap{round(100 * float(iou))}"]
            assert report[kind]["1"]["at_iou"][iou]["ap"] == pytest.approx(expected, abs=1e-12)
            counts = report[kind]["1"]["at_iou"][iou]["detections"]
            assert sum(counts.values()) == len(detected)
            assert counts["found"] == report[kind]["1"]["at_iou"][iou]["objects"]["found"]


@pytest.mark.parametrize("renamed", [str, lambda number: 2**80 + number, lambda number: -number])
def test_a_report_does_not_depend_on_the_kind_of_ids(tmp_path: Path, renamed: Callable[[int], Id]) -> None:
    rows = [annotation(1, 1, DISC, HERE), annotation(2, 2, STAR, FAR)]
    entries = [{**found(HALF, 0.9), "image_id": 1}, {**found(FAR, 0.8), "image_id": 2}]
    entries = [{**one, "segmentation": rectangle(tuple(one["bbox"]))} for one in entries]
    reports = []
    for rename in (int, renamed):
        content = json.loads(write_coco(tmp_path, rows, image_ids=(1, 2)).read_text())
        for record in (*content["images"], *content["annotations"], *content["categories"]):
            record |= {key: rename(record[key]) for key in ("id", "image_id", "category_id") if key in record}
        path, results = tmp_path / "renamed.json", tmp_path / "detections.json"
        path.write_text(json.dumps(content))
        results.write_text(
            json.dumps([{**one, **{key: rename(one[key]) for key in ("image_id", "category_id")}} for one in entries])
        )
        ground = load_ground_truth(path)
        loops = {kind: [read_results(results, ground, kind)] for kind in ("bbox", "segm")}
        reports.append(error_report(ground, loops["bbox"], loops["segm"], sorted(ground.images), SETTINGS))
    assert reports[0]["box"]["1"]["at_iou"]["0.5"]["detections"]["cls"] == 1
    for report in reports:  # the order of classes is that of their ids
        report["classes"].sort()
        for kind in ("box", "mask"):
            del report[kind]["1"]["confusion"]
    assert reports[0] == reports[1]
