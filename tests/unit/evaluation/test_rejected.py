"""What the data set skips is no ground truth: both read the same file, so both must leave out the same records."""

import json
import math
from pathlib import Path

import pytest
from evaluation_data import data_module
from evaluation_samples import annotation, batch_of, detections, write_coco

from r3cnn.cli.parts import build_metric
from r3cnn.data.checks import AnnotationError

LEFT, RIGHT = (10.0, 10.0, 20.0, 20.0), (60.0, 50.0, 20.0, 20.0)
BAD_ANNOTATIONS = {
    "unknown image": {"image_id": 9},
    "unknown category": {"category_id": 5},
    "polygon of two points": {"segmentation": [[1.0, 2.0, 3.0, 4.0]]},
    "polygon of one point": {"segmentation": [[1.0, 2.0]]},
    "no segmentation": {"segmentation": None},
    "NaN box": {"bbox": [60.0, math.nan, 20.0, 20.0]},
    "box outside its image": {"bbox": [110.0, 50.0, 30.0, 20.0]},
    "run lengths of another size": {"segmentation": {"size": [120, 100], "counts": [0, 12000]}},
    "id of another annotation": {"id": 1},
    "id that is no number and no text": {"id": 1.5},
    "area that is no number": {"area": "large"},
    "crowd flag that is no number": {"iscrowd": "no"},
}
BAD_IMAGES = {
    "no height": {"height": None},
    "id of another image, other size": {"id": 1, "height": 50},
    "id that is no number": {"id": "two"},
    "name with a control character": {"file_name": "\t.png"},
}


def assert_only_the_good_record_counts(path: Path) -> None:
    """Its object is found, so every figure is 1; one more object that is not found would halve them."""
    metric = build_metric({}, data_module(path))
    metric.update(batch_of([1]), [[detections([(LEFT, 0.9, 0)])]])
    metrics = metric.compute().metrics
    assert metrics["box"]["ap"] == pytest.approx(1.0, abs=1e-12)
    assert metrics["mask"]["ap"] == pytest.approx(1.0, abs=1e-12)
    assert metrics["images"] == {"seen": 1, "total": 1}


@pytest.mark.parametrize("reason", BAD_ANNOTATIONS)
def test_an_annotation_that_the_data_set_skips_is_no_ground_truth(tmp_path: Path, reason: str) -> None:
    path = write_coco(tmp_path, [annotation(1, 1, 3, LEFT), annotation(2, 1, 3, RIGHT) | BAD_ANNOTATIONS[reason]])
    assert_only_the_good_record_counts(path)
    with pytest.raises(AnnotationError):
        build_metric({}, data_module(path, on_bad_annotation="error"))


@pytest.mark.parametrize("reason", BAD_IMAGES)
def test_an_image_that_the_data_set_skips_is_no_ground_truth(tmp_path: Path, reason: str) -> None:
    path = write_coco(tmp_path, [annotation(1, 1, 3, LEFT), annotation(2, 2, 3, RIGHT)], image_ids=(1, 2))
    content = json.loads(path.read_text())
    content["images"][1] |= BAD_IMAGES[reason]
    path.write_text(json.dumps(content))
    assert_only_the_good_record_counts(path)


def test_objects_of_an_image_that_is_missing_are_no_ground_truth(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 1, 3, LEFT), annotation(2, 2, 3, RIGHT)], image_ids=(1, 2))
    data = data_module(path)
    (tmp_path / "2.png").unlink()
    metric = build_metric({}, data)
    assert data.val_set.image_ids == (1,)
    metric.update(batch_of([1]), [[detections([(LEFT, 0.9, 0)])]])
    assert metric.compute().metrics["box"]["ap"] == pytest.approx(1.0, abs=1e-12)


def test_a_good_file_loses_nothing(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [annotation(1, 1, 3, LEFT), annotation(2, 1, 3, RIGHT)])
    metric = build_metric({}, data_module(path))
    metric.update(batch_of([1]), [[detections([(LEFT, 0.9, 0)])]])
    assert metric.compute().metrics["box"]["ap"] == pytest.approx(51 / 101, abs=1e-12)
