import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from evaluation_samples import annotation, batch_of, detections

from r3cnn.evaluation.coco_ap import CocoAP
from r3cnn.evaluation.metrics import Metrics
from r3cnn.run_files import write_json
from r3cnn.structures import Detections

CocoFile = Callable[..., Path]
BACKENDS = ["faster_coco_eval", "pycocotools"]
LEFT, RIGHT = (10.0, 10.0, 20.0, 20.0), (60.0, 50.0, 20.0, 20.0)


def evaluate(path: Path, found: dict[int, list[Detections]], **options: object) -> Metrics:
    """``found``: per image the detections of each loop."""
    metric = CocoAP(path, (3, 7), **options)
    for image_id, loops in found.items():
        metric.update(batch_of([image_id]), [[one] for one in loops])
    return metric.compute().metrics


@pytest.mark.parametrize("backend", BACKENDS)
class TestHandComputed:
    def test_a_wrong_detection_above_the_right_one_halves_the_precision(
        self, coco_file: CocoFile, backend: str
    ) -> None:
        path = coco_file([annotation(1, 1, 3, LEFT)])
        metrics = evaluate(path, {1: [detections([(RIGHT, 0.9, 0), (LEFT, 0.8, 0)])]}, backend=backend)
        for kind in ("box", "mask"):
            assert metrics[kind]["ap"] == pytest.approx(0.5, abs=1e-12)
            assert metrics[kind]["ap_small"] == pytest.approx(0.5, abs=1e-12)
            assert metrics[kind]["ap_medium"] is None
            assert metrics[kind]["ap_large"] is None

    def test_an_overlap_of_two_thirds_passes_four_of_ten_thresholds(self, coco_file: CocoFile, backend: str) -> None:
        path = coco_file([annotation(1, 1, 3, LEFT)])
        metrics = evaluate(path, {1: [detections([((10.0, 10.0, 20.0, 30.0), 0.9, 0)])]}, backend=backend)
        for kind in ("box", "mask"):
            stats = metrics[kind]
            assert stats["ap"] == pytest.approx(0.4, abs=1e-12)
            assert (stats["ap50"], stats["ap75"]) == (pytest.approx(1.0), 0.0)

    def test_one_of_two_objects_reaches_51_of_101_recall_levels(self, coco_file: CocoFile, backend: str) -> None:
        path = coco_file([annotation(1, 1, 3, LEFT), annotation(2, 1, 3, RIGHT)])
        metrics = evaluate(path, {1: [detections([(LEFT, 0.9, 0)])]}, backend=backend)
        assert metrics["box"]["ap"] == pytest.approx(51 / 101, abs=1e-12)
        assert metrics["mask"]["ap"] == pytest.approx(51 / 101, abs=1e-12)

    def test_the_mean_runs_over_classes_with_ground_truth_only(self, coco_file: CocoFile, backend: str) -> None:
        path = coco_file([annotation(1, 1, 7, LEFT)])
        metrics = evaluate(path, {1: [detections([(LEFT, 0.9, 1), (RIGHT, 0.95, 0)])]}, backend=backend)
        assert metrics["mask"]["ap"] == pytest.approx(1.0, abs=1e-12)
        assert metrics["per_class"]["disc"] == {"box": None, "mask": None}
        assert metrics["per_class"]["star"]["box"] == pytest.approx(1.0, abs=1e-12)

    def test_a_detection_inside_a_crowd_is_neither_right_nor_wrong(self, coco_file: CocoFile, backend: str) -> None:
        crowd = annotation(2, 1, 3, (50.0, 40.0, 50.0, 50.0), iscrowd=1)
        found = {1: [detections([(RIGHT, 0.9, 0), (LEFT, 0.8, 0)])]}
        assert evaluate(coco_file([annotation(1, 1, 3, LEFT), crowd]), found, backend=backend)["mask"][
            "ap"
        ] == pytest.approx(1.0, abs=1e-12)

    def test_without_any_detection_the_ap_is_zero(self, coco_file: CocoFile, backend: str) -> None:
        metrics = evaluate(coco_file([annotation(1, 1, 3, LEFT)]), {1: [detections([])]}, backend=backend)
        assert (metrics["box"]["ap"], metrics["mask"]["ap50"]) == (0.0, 0.0)

    def test_without_ground_truth_the_ap_is_undefined(self, coco_file: CocoFile, backend: str) -> None:
        metrics = evaluate(coco_file([]), {1: [detections([(LEFT, 0.9, 0)])]}, backend=backend)
        assert set(metrics["box"].values()) | set(metrics["mask"].values()) == {None}

    def test_every_loop_has_its_own_figures_and_the_last_is_the_result(self, coco_file: CocoFile, backend: str) -> None:
        path = coco_file([annotation(1, 1, 3, LEFT)])
        loops = [
            detections([(RIGHT, 0.9, 0)]),
            detections([((10.0, 10.0, 20.0, 30.0), 0.9, 0)]),
            detections([(LEFT, 0.9, 0)]),
        ]
        metrics = evaluate(path, {1: loops}, backend=backend)
        assert [metrics["loops"][loop]["mask"]["ap"] for loop in ("1", "2", "3")] == pytest.approx([0.0, 0.4, 1.0])
        assert metrics["mask"] == metrics["loops"]["3"]["mask"]
        assert metrics["box"] == metrics["loops"]["3"]["box"]

    def test_ground_truth_of_images_that_were_not_seen_is_left_out(self, coco_file: CocoFile, backend: str) -> None:
        path = coco_file([annotation(1, 1, 3, LEFT), annotation(2, 2, 3, LEFT)], image_ids=(1, 2, 5))
        metrics = evaluate(path, {1: [detections([(LEFT, 0.9, 0)])]}, backend=backend)
        assert metrics["mask"]["ap"] == pytest.approx(1.0, abs=1e-12)
        assert metrics["images"] == {"seen": 1, "total": 3}

    def test_annotation_id_zero_can_be_found(self, coco_file: CocoFile, backend: str) -> None:
        metrics = evaluate(
            coco_file([annotation(0, 1, 3, LEFT), annotation(1, 1, 3, RIGHT)]),
            {1: [detections([(LEFT, 0.9, 0), (RIGHT, 0.8, 0)])]},
            backend=backend,
        )
        assert metrics["box"]["ap"] == pytest.approx(1.0, abs=1e-12)

    def test_no_image_at_all_gives_undefined_figures(self, coco_file: CocoFile, backend: str) -> None:
        metrics = evaluate(coco_file([annotation(1, 1, 3, LEFT)]), {}, backend=backend)
        assert metrics["mask"]["ap"] is None
        assert metrics["images"] == {"seen": 0, "total": 1}


def test_boxes_rank_by_score_and_masks_by_mask_score(coco_file: CocoFile) -> None:
    path = coco_file([annotation(1, 1, 3, LEFT)])
    metrics = evaluate(path, {1: [detections([(LEFT, 0.9, 0), (RIGHT, 0.8, 0)], mask_scores=[0.1, 0.7])]})
    assert metrics["box"]["ap"] == pytest.approx(1.0, abs=1e-12)
    assert metrics["mask"]["ap"] == pytest.approx(0.5, abs=1e-12)


def test_the_area_of_a_wrong_mask_is_its_own_or_that_of_its_box(coco_file: CocoFile) -> None:
    right, wrong = (10.0, 10.0, 40.0, 40.0), (60.0, 50.0, 40.0, 40.0)
    path = coco_file([annotation(1, 1, 3, right)])
    found = detections([(right, 0.5, 0), (wrong, 0.9, 0)])
    found.masks[1, 7:] = 0
    found.masks[1, :, 7:] = 0  # a quarter of each side: 10 x 10 pixels are small, the box of 40 x 40 is medium
    by_mask, by_box = (evaluate(path, {1: [found]}, area_from=kind)["mask"]["ap_medium"] for kind in ("mask", "box"))
    assert by_mask == pytest.approx(1.0, abs=1e-12)
    assert by_box == pytest.approx(0.5, abs=1e-12)


def test_only_the_best_detections_up_to_the_limit_count(coco_file: CocoFile) -> None:
    path = coco_file([annotation(1, 1, 3, LEFT)])
    found = {1: [detections([(RIGHT, 0.9, 0), (LEFT, 0.8, 0)])]}
    assert evaluate(path, found, max_detections=1)["box"]["ap"] == 0.0
    assert evaluate(path, found, max_detections=2)["box"]["ap"] == pytest.approx(0.5)


def test_detections_come_back_in_pixels_of_the_image_file(coco_file: CocoFile) -> None:
    path = coco_file([annotation(1, 1, 3, LEFT)])
    metric = CocoAP(path, (3, 7))
    metric.update(batch_of([1], size=(200, 240)), [[detections([((20.0, 20.0, 40.0, 40.0), 0.9, 0)])]])
    result = metric.compute()
    assert result.metrics["mask"]["ap"] == pytest.approx(1.0, abs=1e-12)
    assert result.detections[0]["bbox"] == [10.0, 10.0, 20.0, 20.0]
    assert result.detections[0]["category_id"] == 3
    assert "mask_score" not in result.detections[0]


def test_boxes_are_clipped_to_the_image_file(coco_file: CocoFile) -> None:
    metric = CocoAP(coco_file([]), (3, 7))
    metric.update(batch_of([1]), [[detections([((-5.0, -5.0, 300.0, 300.0), 0.9, 0)])]])
    assert metric.compute().detections[0]["bbox"] == [0.0, 0.0, 120.0, 100.0]


def test_an_image_that_comes_twice_is_refused_by_its_id(coco_file: CocoFile) -> None:
    metric = CocoAP(coco_file([annotation(1, 1, 3, LEFT)]), (3, 7))
    for _ in range(2):
        metric.update(batch_of([1]), [[detections([(LEFT, 0.9, 0)])]])
    with pytest.raises(ValueError, match=r"1 images were evaluated more than once: ids 1$"):
        metric.compute()


@pytest.mark.parametrize(
    ("handed_out", "message"),
    [
        ((1, 2, 5), "2 images were handed out and not evaluated: ids 2, 5$"),
        ((), "1 images were evaluated and not handed out: ids 1$"),
        ((1, 1), "1 images were handed out more than once: ids 1$"),
    ],
)
def test_images_other_than_those_handed_out_are_refused_by_their_ids(
    coco_file: CocoFile, handed_out: tuple[int, ...], message: str
) -> None:
    metric = CocoAP(coco_file([annotation(1, 1, 3, LEFT)], image_ids=(1, 2, 5)), (3, 7))
    metric.start(handed_out)
    metric.update(batch_of([1]), [[detections([(LEFT, 0.9, 0)])]])
    with pytest.raises(ValueError, match=message):
        metric.compute()


def test_a_new_start_forgets_a_validation_that_was_broken_off(coco_file: CocoFile) -> None:
    metric = CocoAP(coco_file([annotation(1, 1, 3, LEFT)]), (3, 7))
    metric.update(batch_of([1]), [[detections([])]])
    metric.start((1,))
    metric.update(batch_of([1]), [[detections([(LEFT, 0.9, 0)])]])
    assert metric.compute().metrics["box"]["ap"] == pytest.approx(1.0, abs=1e-12)


def test_the_order_of_the_images_does_not_matter(coco_file: CocoFile) -> None:
    path = coco_file([annotation(number, number, 3, LEFT) for number in (1, 2, 3)], image_ids=(1, 2, 3))
    found = {1: [detections([(LEFT, 0.5, 0)])], 2: [detections([(RIGHT, 0.5, 0)])], 3: [detections([(LEFT, 0.4, 0)])]}
    assert evaluate(path, found) == evaluate(path, dict(reversed(found.items())))


def test_reset_forgets_what_was_found(coco_file: CocoFile) -> None:
    metric = CocoAP(coco_file([annotation(1, 1, 3, LEFT)]), (3, 7))
    metric.update(batch_of([1]), [[detections([(LEFT, 0.9, 0)])]])
    assert metric.compute().metrics["images"]["seen"] == 1
    metric.reset()
    assert metric.compute().metrics["images"]["seen"] == 0


def test_evaluating_twice_gives_the_same(coco_file: CocoFile) -> None:
    for backend in BACKENDS:
        metric = CocoAP(coco_file([annotation(1, 1, 3, LEFT), annotation(2, 1, 3, RIGHT)]), (3, 7), backend=backend)
        metric.update(batch_of([1]), [[detections([(LEFT, 0.9, 0)])]])
        assert metric.compute().metrics == metric.compute().metrics


def test_evaluation_prints_nothing(coco_file: CocoFile, capsys: pytest.CaptureFixture[str]) -> None:
    path = coco_file([annotation(1, 1, 3, LEFT)])
    seen = [
        evaluate(path, {1: [detections([(LEFT, 0.9, 0)])]}, backend=backend)["images"]["seen"] for backend in BACKENDS
    ]
    assert seen == [1, 1]
    assert capsys.readouterr() == ("", "")


def test_written_files_hold_null_and_exact_floats(coco_file: CocoFile, tmp_path: Path) -> None:
    metric = CocoAP(coco_file([annotation(1, 1, 3, LEFT)]), (3, 7))
    metric.update(batch_of([1]), [[detections([(LEFT, 0.1, 0)], mask_scores=[0.3])]])
    result = metric.compute()
    write_json(result.metrics, tmp_path / "metrics.json")
    write_json(result.detections, tmp_path / "detections.json")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["mask"]["ap_large"] is None
    assert set(metrics) == {"box", "mask", "per_class", "loops", "images"}
    entry = json.loads((tmp_path / "detections.json").read_text())[0]
    assert entry["score"] == torch.tensor(0.1).item()
    assert entry["mask_score"] == torch.tensor(0.3).item()
    assert entry["segmentation"]["size"] == [100, 120]


def test_a_category_that_the_file_lacks_is_refused_before_anything_is_evaluated(coco_file: CocoFile) -> None:
    with pytest.raises(ValueError, match="has no category 4"):
        CocoAP(coco_file([]), (3, 4))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_class_that_the_file_lacks_has_no_figure_and_changes_none(coco_file: CocoFile, backend: str) -> None:
    metric = CocoAP(coco_file([annotation(1, 1, 3, LEFT)]), (8, 3, 7), classes=["moon", "a", "b"], backend=backend)
    metric.update(batch_of([1]), [[detections([(LEFT, 0.8, 1), (RIGHT, 0.9, 0)])]])
    result = metric.compute()
    assert result.metrics["mask"]["ap"] == pytest.approx(1.0, abs=1e-12)
    assert list(result.metrics["per_class"]) == ["moon", "a", "b"]
    assert result.metrics["per_class"]["moon"] == {"box": None, "mask": None}
    assert [entry["category_id"] for entry in result.detections] == [3, 8]


def test_a_file_that_cannot_be_evaluated_is_refused_before_anything_is_evaluated(coco_file: CocoFile) -> None:
    path = coco_file([annotation(1, 8, 3, LEFT)])
    with pytest.raises(ValueError, match="annotation 1 belongs to image_id 8, which is not in the file"):
        CocoAP(path, (3, 7))


def test_an_image_that_the_file_lacks_is_refused(coco_file: CocoFile) -> None:
    metric = CocoAP(coco_file([]), (3, 7))
    metric.update(batch_of([9]), [[detections([])]])
    with pytest.raises(ValueError, match="image 9 is not in"):
        metric.compute()


def test_an_image_with_fewer_loops_than_the_others_is_refused(coco_file: CocoFile) -> None:
    metric = CocoAP(coco_file([], image_ids=(1, 2)), (3, 7))
    metric.update(batch_of([1]), [[detections([])]])
    metric.update(batch_of([2]), [[detections([])], [detections([])]])
    with pytest.raises(ValueError, match="with 1 and with 2 loops"):
        metric.compute()


def test_detections_of_another_number_of_images_are_refused(coco_file: CocoFile) -> None:
    metric = CocoAP(coco_file([]), (3, 7))
    with pytest.raises(ValueError, match="loop 1 has detections of 1 images, the batch holds 2"):
        metric.update(batch_of([1, 2]), [[detections([])]])
