"""The same numbers as the program of TIDE's authors (github.com/dbolya/tide, version 1.0.1), recorded."""

from __future__ import annotations

import numpy as np
import pytest

from r3cnn.evaluation.error_matching import Judged, Verdict, judge, overlaps_of
from r3cnn.evaluation.error_oracle import FALSE_NEGATIVES, FALSE_POSITIVES, ap_gains, mean_ap
from r3cnn.evaluation.ground_truth import Instance

IMAGES, CATEGORIES = 30, 3
# In percent. TIDE's recall levels are k / 100, ours those of COCO: they differ in their last bits, so a recall that is
# a whole percent may fall on either side. With this seed, none is.
RECORDED = {
    0.5: {
        "ap": 26.093253552076366,
        "cls": 5.76868092242557,
        "loc": 16.788018541830457,
        "both": 5.072529819588876,
        "dupe": 1.1973239148275887,
        "bkg": 4.072535646304409,
        "miss": 6.103113915441842,
        FALSE_POSITIVES: 28.69222499577842,
        FALSE_NEGATIVES: 21.492903830504982,
    },
    0.75: {
        "ap": 3.8429254690174894,
        "cls": 1.0114821314588345,
        "loc": 42.627060444215736,
        "both": 0.6233859854766544,
        "dupe": 0.0,
        "bkg": 0.44449583088766653,
        "miss": 1.1817534694645953,
        FALSE_POSITIVES: 14.308889712500664,
        FALSE_NEGATIVES: 21.082567080237446,
    },
}
COUNTS = {0.5: [11, 37, 19, 25, 33, 16], 0.75: [1, 92, 29, 1, 33, 19]}  # Cls, Loc, Both, Dupe, Bkg, Miss


def drawn(seed: int) -> tuple[list[Instance], list[Instance]]:
    """Objects, and detections: near them or anywhere, some renamed, some double."""
    random = np.random.RandomState(seed)  # its numbers are promised to stay
    objects: list[Instance] = []
    found: list[Instance] = []

    def add(where: list[Instance], image: int, category: int, box: list[int]) -> None:
        where.append({"image_id": image, "category_id": category, "bbox": [*map(float, box)], "iscrowd": 0})

    for image in range(1, IMAGES + 1):
        for _ in range(random.randint(0, 7)):
            box = [*random.randint(0, 200, 2).tolist(), *random.randint(15, 80, 2).tolist()]
            category = int(random.randint(1, CATEGORIES + 1))
            add(objects, image, category, box)
            for _ in range(random.randint(0, 4)):
                moved = (np.array(box) + random.randint(-12, 13, 4)).clip(1).tolist()
                renamed = int(random.randint(1, CATEGORIES + 1)) if random.rand() < 0.3 else category
                add(found, image, renamed, moved)
        for _ in range(random.randint(0, 3)):
            box = [*random.randint(0, 200, 2).tolist(), *random.randint(15, 80, 2).tolist()]
            add(found, image, int(random.randint(1, CATEGORIES + 1)), box)
    scores = (random.permutation(len(found)) + 1) / (len(found) + 1)
    for one, score in zip(found, scores.tolist(), strict=True):
        one["score"] = score
    return objects, found


def judged(foreground_iou: float) -> Judged:
    objects, found = drawn(3)
    images = {
        image: overlaps_of(
            [one for one in found if one["image_id"] == image],
            [one for one in objects if one["image_id"] == image],
            "bbox",
            100,
        )
        for image in range(1, IMAGES + 1)
    }
    return judge(images, foreground_iou, 0.1)


@pytest.mark.parametrize("foreground_iou", RECORDED)
def test_ap_and_the_gain_without_each_kind_of_error_are_those_of_tide(foreground_iou: float) -> None:
    result = judged(foreground_iou)
    found = {"ap": mean_ap(result), **ap_gains(result)}
    assert {kind: 100 * value for kind, value in found.items()} == pytest.approx(
        RECORDED[foreground_iou], rel=1e-9, abs=1e-9
    )


@pytest.mark.parametrize("foreground_iou", RECORDED)
def test_there_are_as_many_errors_of_each_kind_as_tide_finds(foreground_iou: float) -> None:
    result = judged(foreground_iou)
    counts = [int((result.verdicts == kind).sum()) for kind in Verdict][Verdict.CLS : Verdict.IGNORED]
    assert [*counts, int(result.is_missed.sum())] == COUNTS[foreground_iou]
