"""Two sets of detections beside each other."""

from __future__ import annotations

import torch
from torch import Tensor

from r3cnn.interop.comparison import Differences, differences
from r3cnn.structures import Detections

BOXES = [[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 50.0], [5.0, 5.0, 30.0, 30.0]]


def wanted(count: int = 3) -> Detections:
    scores = torch.tensor([0.9, 0.9, 0.4])[:count]
    masks = torch.full((count, 2, 2), 0.5)
    return Detections(torch.tensor(BOXES)[:count], scores, torch.tensor([1, 1, 0])[:count], masks, scores / 2)


def found(order: list[int], slots: int = 5) -> dict[str, Tensor]:
    """The same detections in fixed slots of one image, in another order."""
    all_, taken = wanted(), torch.tensor(order, dtype=torch.int64)
    names = ("boxes", "scores", "labels", "masks", "mask_scores")
    values = {name: getattr(all_, name)[taken] for name in names}
    free = slots - len(order)
    filled = {name: torch.cat([value, value.new_zeros(free, *value.shape[1:])])[None] for name, value in values.items()}
    return {**filled, "valid": (torch.arange(slots) < len(order))[None]}


def test_the_order_of_detections_makes_no_difference() -> None:
    assert differences(found([2, 1, 0]), [wanted()]) == Differences(compared=3)


def test_the_largest_difference_of_every_field_is_told() -> None:
    other = found([0, 1, 2])
    other["boxes"][0, 1, 3] += 0.25
    other["scores"][0, 1] += 0.0078125
    other["masks"][0, 0, 1, 1] += 0.125
    other["mask_scores"][0, 0] += 0.0625
    result = differences(other, [wanted()])
    largest = torch.tensor([result.boxes, result.scores, result.masks, result.mask_scores])
    torch.testing.assert_close(largest, torch.tensor([0.25, 0.0078125, 0.125, 0.0625]))
    assert (result.compared, result.unpaired) == (3, 0)


def test_a_score_or_a_box_that_is_far_off_is_another_detection() -> None:
    for name, amount in (("scores", 0.1), ("boxes", 3.0)):
        other = found([0, 1, 2])
        other[name][0, 2] += amount
        assert differences(other, [wanted()]) == Differences(compared=2, unpaired=2)


def test_a_detection_of_one_side_alone_is_unpaired() -> None:
    assert differences(found([0, 1]), [wanted()]) == Differences(compared=2, unpaired=1)
    assert differences(found([0, 1, 2]), [wanted(1)]) == Differences(compared=1, unpaired=2)
    assert differences(found([]), [wanted()]) == Differences(unpaired=3)
    assert differences(found([]), [wanted(0)]) == Differences()


def test_another_class_is_another_detection() -> None:
    other = found([0, 1, 2])
    other["labels"][0, 2] = 1
    assert differences(other, [wanted()]) == Differences(compared=2, unpaired=2)


def test_nothing_may_exceed_its_tolerance() -> None:
    tolerance = Differences(boxes=0.1, scores=0.1, masks=0.1, mask_scores=0.1)
    assert Differences(boxes=0.1, compared=7).is_within(tolerance)
    too_much = [Differences(boxes=0.2), Differences(scores=0.2), Differences(masks=0.2), Differences(mask_scores=0.2)]
    assert not any(one.is_within(tolerance) for one in [*too_much, Differences(unpaired=1)])
