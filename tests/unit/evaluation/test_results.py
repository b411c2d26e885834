"""COCO results files, ours and others'."""

import json
from pathlib import Path

import pytest
from evaluation_samples import annotation, rectangle, write_coco

from r3cnn.evaluation.ground_truth import GroundTruth, load_ground_truth
from r3cnn.evaluation.results import read_results

BOX = (10.0, 20.0, 30.0, 8.0)
ENTRY = {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": rectangle(BOX)}


@pytest.fixture
def truth(tmp_path: Path) -> GroundTruth:
    return load_ground_truth(write_coco(tmp_path, [annotation(1, 1, 3, BOX)]))


def test_masks_rank_by_their_own_score_and_a_missing_box_is_the_masks(tmp_path: Path, truth: GroundTruth) -> None:
    (tmp_path / "found.json").write_text(json.dumps([{**ENTRY, "mask_score": 0.25}, ENTRY]))
    masks = read_results(tmp_path / "found.json", truth, "segm")
    boxes = read_results(tmp_path / "found.json", truth, "bbox")
    assert [one["score"] for one in masks] == [0.25, 0.5]
    assert [one["score"] for one in boxes] == [0.5, 0.5]
    assert boxes[0]["bbox"] == [*BOX]
    assert masks[0]["area"] == boxes[0]["area"] == 240


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is not valid JSON"),
        ("{}", "is no COCO results file: a list is needed, got a dict"),
        (json.dumps([{**ENTRY, "image_id": 9}]), "entry 0 lacks 9, or speaks of an unknown image"),
        (json.dumps([ENTRY, {"image_id": 1, "category_id": 3}]), "entry 1 lacks 'score'"),
    ],
)
def test_another_file_is_refused_by_name_and_entry(
    tmp_path: Path, truth: GroundTruth, content: str, message: str
) -> None:
    (tmp_path / "found.json").write_text(content)
    with pytest.raises(ValueError, match=f"found.json.*{message}"):
        read_results(tmp_path / "found.json", truth, "bbox")
