"""COCO results files, ours and others'."""

import json
from pathlib import Path

import pytest
from evaluation_samples import SIZE, annotation, rectangle, write_coco

from r3cnn.evaluation.ground_truth import GroundTruth, load_ground_truth
from r3cnn.evaluation.results import read_results

BOX = (10.0, 20.0, 30.0, 8.0)
ENTRY = {"image_id": 1, "category_id": 3, "score": 0.5, "segmentation": rectangle(BOX)}

PIXELS = SIZE[0] * SIZE[1]


def runs(counts: object, height: int = SIZE[0]) -> dict[str, object]:
    return {"segmentation": {"size": [height, SIZE[1]], "counts": counts}}


WRONG = [
    ({"image_id": 9}, "image_id 9, which is not in the annotation file"),
    ({"image_id": True}, "image_id True: a whole number"),
    ({"category_id": True}, "category_id True: a whole number"),
    *(({"score": value}, f"score {value!r}: a finite number") for value in (True, "0.5", None, "")),
    ({"bbox": [True, 20, 30, 8]}, r"bbox \[True"),
    ({"bbox": [10, 20, "30", 8]}, "bbox .*finite"),
    ({"bbox": [10, 20, -30, 8]}, "bbox .*no side below 0"),
    ({"bbox": 5}, "bbox 5"),
    (runs([PIXELS], 2**31), "size .2147483648, "),
    (runs([PIXELS + 1]), f"sum to {PIXELS + 1} pixels, its image has {PIXELS}"),
    (runs([-1, PIXELS + 1]), "-1 in the counts"),
    (runs([True, PIXELS - 1]), "True in the counts"),
    (runs("1"), f"sum to 1 pixels, its image has {PIXELS}"),
    (runs("O"), "negative run"),
    (runs("ooooooooooo0"), "more than 6 digits"),
    (runs("o"), "characters that are none of its code"),
    (runs(""), "characters that are none of its code"),
]


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
        ("[5]", "entry 0 is 5: a detection is needed"),
        (json.dumps([ENTRY, {"image_id": 1, "category_id": 3}]), "entry 1 has score None"),
        *((json.dumps([{**ENTRY, **wrong}]), f"entry 0 has .*{message}") for wrong, message in WRONG),
    ],
)
def test_another_file_is_refused_by_name_and_entry(
    tmp_path: Path, truth: GroundTruth, content: str, message: str
) -> None:
    (tmp_path / "found.json").write_text(content)
    with pytest.raises(ValueError, match=f"found.json.*{message}"):
        read_results(tmp_path / "found.json", truth, "bbox")
