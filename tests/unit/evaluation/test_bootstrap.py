"""Bootstrap intervals of AP differences, against the protocol itself and against data of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from r3cnn.data.segmentation import encode
from r3cnn.evaluation import bootstrap
from r3cnn.evaluation.bootstrap import ApDifference, ImageMatches, match_images, resample
from r3cnn.evaluation.ground_truth import GroundTruth, Instance
from r3cnn.evaluation.protocol import IouType, Protocol

SIZE, IMAGES, CATEGORIES = (120, 160), 12, (2, 5, 9)
KINDS: tuple[IouType, ...] = ("bbox", "segm")


def instance(image: int, category: int, box: list[float], number: int, score: float | None = None) -> Instance:
    x, y, width, height = box
    outline = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    made: Instance = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": width * height,
        "iscrowd": 0,
        "segmentation": {"size": [*SIZE], "counts": encode(outline, SIZE)[0]},
    }
    if score is not None:
        made["score"] = score
    return made


def drawn(seed: int, jitter: int = 10) -> tuple[GroundTruth, list[Instance]]:
    """Objects, one crowd among them, and detections near them or anywhere; the objects are always the same."""
    random, moves = np.random.default_rng(0), np.random.default_rng(seed)
    objects: list[Instance] = []
    found: list[Instance] = []
    for image in range(1, IMAGES + 1):
        for _ in range(int(random.integers(0, 6))):
            box = [float(number) for number in [*random.integers(0, 80, 2), *random.integers(12, 40, 2)]]
            category = int(random.choice(CATEGORIES))
            objects.append(instance(image, category, box, len(objects) + 1))
            moved = [*(np.array(box) + moves.integers(-jitter, jitter + 1, 4)).clip(1).astype(float).tolist()]
            found.append(instance(image, category, moved, len(found) + 1, float(moves.random())))
        wrong = [float(number) for number in [*moves.integers(0, 80, 2), *moves.integers(12, 40, 2)]]
        found.append(instance(image, int(moves.choice(CATEGORIES)), wrong, len(found) + 1, float(moves.random())))
    objects[3]["iscrowd"] = 1
    images = dict.fromkeys(range(1, IMAGES + 1), SIZE)
    return GroundTruth(images, {key: f"class {key}" for key in CATEGORIES}, tuple(objects)), found


def matched(truth: GroundTruth, found: list[Instance], kind: IouType = "bbox", limit: int = 100) -> ImageMatches:
    return match_images(truth, found, list(truth.images), kind, limit)


def paired_bootstrap(
    first: list[ImageMatches], second: list[ImageMatches], *, resamples: int = 100, seed: int = 0
) -> ApDifference:
    systems = ([resample(one, resamples, seed) for one in system] for system in (first, second))
    return bootstrap.paired_bootstrap(*systems, seed=seed)


def reference(truth: GroundTruth, found: list[Instance], kind: IouType, limit: int = 100) -> float | None:
    protocol = Protocol([list(truth.images)], CATEGORIES, limit)
    return protocol.precision(truth, lambda _: found, kind).summary()["ap"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [1, 100])
def test_with_every_image_counted_once_it_is_the_ap_of_the_protocol(kind: IouType, seed: int, limit: int) -> None:
    truth, found = drawn(seed)
    expected = reference(truth, found, kind, limit)
    assert expected is not None
    assert 0.001 < expected < 0.99
    assert matched(truth, found, kind, limit).average_precision()[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_an_image_counted_several_times_or_never_is_one_that_is_there_so_often(seed: int) -> None:
    truth, found = drawn(seed)
    weights = np.random.default_rng(seed).integers(0, 4, IMAGES)
    copies = [(image, copy) for image, weight in zip(truth.images, weights, strict=True) for copy in range(weight)]

    def repeated(entries: list[Instance]) -> list[Instance]:
        made: list[Instance] = []
        for number, (image, _) in enumerate(copies, start=1):
            for one in entries:
                if one["image_id"] == image:
                    copied = one.copy()
                    copied["image_id"], copied["id"] = number, len(made) + 1
                    made.append(copied)
        return made

    images = dict.fromkeys(range(1, len(copies) + 1), SIZE)
    whole = GroundTruth(images, truth.category_names, tuple(repeated(list(truth.annotations))))
    expected = reference(whole, repeated(found), "bbox")
    several = np.stack([np.ones(IMAGES), weights, 2.0 * weights])
    assert matched(truth, found).average_precision(several)[1:] == pytest.approx([expected, expected], abs=1e-12)


def test_a_system_does_not_differ_from_itself() -> None:
    one = matched(*drawn(0))
    difference = paired_bootstrap([one], [one], resamples=50)
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert not difference.is_significant


def test_a_far_better_system_is_significantly_better_and_the_other_way_round() -> None:
    truth, good = drawn(1, jitter=1)
    poor = drawn(2, jitter=14)[1]
    better = paired_bootstrap([matched(truth, good)], [matched(truth, poor)], resamples=200)
    worse = paired_bootstrap([matched(truth, poor)], [matched(truth, good)], resamples=200)
    assert better.low > 0.05
    assert better.is_significant
    assert (worse.low, worse.high) == pytest.approx((-better.high, -better.low))
    assert better.low < better.value < better.high


def test_two_draws_of_the_same_noise_differ_by_chance() -> None:
    truth, one = drawn(3)
    difference = paired_bootstrap([matched(truth, one)], [matched(truth, drawn(4)[1])], resamples=200)
    assert difference.low < 0 < difference.high
    assert not difference.is_significant


def test_a_single_image_that_decides_everything_makes_no_significance() -> None:
    """Twelve images with one object each, of which the better system finds one more."""
    objects = [instance(image, 2, [10.0, 10.0, 30.0, 30.0], image) for image in range(1, IMAGES + 1)]
    truth = GroundTruth(dict.fromkeys(range(1, IMAGES + 1), SIZE), {2: "class 2"}, tuple(objects))
    found = [instance(image, 2, [10.0, 10.0, 30.0, 30.0], image, 0.9) for image in range(1, 8)]
    difference = paired_bootstrap([matched(truth, found)], [matched(truth, found[:-1])], resamples=400)
    assert difference.value > 0
    assert difference.low == 0
    assert not difference.is_significant


def test_the_interval_is_a_function_of_the_seed_of_the_draws() -> None:
    truth, one = drawn(3)
    pair = [matched(truth, one)], [matched(truth, drawn(4)[1])]
    first, again, other = (paired_bootstrap(*pair, resamples=60, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_seeds_are_paired_and_their_spread_is_told() -> None:
    truth, found = drawn(5)
    systems = [matched(truth, drawn(seed)[1]) for seed in (6, 7, 8)]
    others = [matched(truth, found)] * 3
    differences = [
        paired_bootstrap([one], [other], resamples=1).value for one, other in zip(systems, others, strict=True)
    ]
    together = paired_bootstrap(systems, others, resamples=100)
    assert together.pairs == 3
    assert together.value == pytest.approx(np.mean(differences))
    assert together.spread == pytest.approx(np.std(differences, ddof=1))
    assert paired_bootstrap(systems[:1], others[:1], resamples=1).spread is None


def test_resamples_without_an_object_are_drawn_again() -> None:
    objects = [instance(1, 2, [10.0, 10.0, 30.0, 30.0], 1)]
    truth = GroundTruth({1: SIZE, 2: SIZE}, {2: "class 2"}, tuple(objects))
    one = matched(truth, [instance(1, 2, [10.0, 10.0, 30.0, 30.0], 1, 0.9)])
    difference = paired_bootstrap([one], [matched(truth, [])], resamples=50)
    assert (difference.low, difference.high) == pytest.approx((1, 1))


def test_draws_are_the_same_to_the_bit_however_many_are_scored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one = matched(*drawn(0))
    at_once = resample(one, 20, 0).drawn
    monkeypatch.setattr(bootstrap, "AT_ONCE", 1)
    assert resample(one, 20, 0).drawn.tolist() == at_once.tolist()


def test_what_cannot_be_compared_is_refused() -> None:
    truth, found = drawn(0)
    one = matched(truth, found)
    part = match_images(truth, [each for each in found if each["image_id"] < 4], [1, 2, 3], "bbox", 100)
    empty = matched(GroundTruth(truth.images, truth.category_names, ()), [])
    for first, second, message in (
        ([one], [part], "different images"),
        ([one], [one, one], "1 runs against 2"),
        ([], [], "0 runs against 0"),
        ([empty], [empty], "no image holds an object"),
    ):
        with pytest.raises(ValueError, match=message):
            paired_bootstrap(first, second, resamples=1)
    with pytest.raises(ValueError, match="confidence 1 must be in"):
        bootstrap.paired_bootstrap([resample(one, 1, 0)], [resample(one, 1, 0)], confidence=1)
