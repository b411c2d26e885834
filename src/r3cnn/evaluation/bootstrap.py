"""How sure a difference in AP is: the images of the validation set drawn anew, with replacement, many times over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r3cnn.evaluation.ground_truth import GroundTruth, Instance
from r3cnn.evaluation.protocol import IouType, MatchedImage, match_with_pycocotools

FloatArray = NDArray[np.float64]
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class CategoryMatches:
    """Detections of one category, best first, equals in the order of their images.

    Attributes:
        images: (D,) position of each detection's image.
        is_right: (T, D) bool, whether it found an object, at T IoU thresholds 0.5 … 0.95.
        is_wrong: (T, D) bool, whether it is a false positive; what is neither does not count (crowds).
        objects: (I,) objects in each of the I images that are to be found.
    """

    images: NDArray[np.int64]
    is_right: NDArray[np.bool_]
    is_wrong: NDArray[np.bool_]
    objects: NDArray[np.int64]


@dataclass(frozen=True)
class ImageMatches:
    """Everything that AP over any choice of images needs, matched once.

    Attributes:
        image_ids: The I images, ascending.
        categories: One entry per category with a detection or an object.
    """

    image_ids: tuple[int, ...]
    categories: tuple[CategoryMatches, ...]

    def average_precision(self, weights: FloatArray | None = None) -> float | None:
        """COCO's AP (IoU 0.50:0.95, all sizes) in [0, 1], with image i counted ``weights[i]`` times.

        Args:
            weights: (I,) how often each image counts, >= 0; None: once each.

        Returns:
            None if no category has an object.
        """
        counts = np.ones(len(self.image_ids)) if weights is None else weights
        values = [_category_ap(matches, counts) for matches in self.categories]
        defined = [value for value in values if value is not None]
        return float(np.mean(defined)) if defined else None


@dataclass(frozen=True)
class ApDifference:
    """AP of one system less that of another on the same images.

    Attributes:
        value: Difference of the two APs, mean over the pairs of runs, in [-1, 1].
        low: Lower end of the confidence interval.
        high: Upper end.
        confidence: Share of the resamples inside, in (0, 1).
        resamples: How often the images, and the pairs if there are several, were drawn anew.
        pairs: Pairs of runs, one per seed.
        spread: Standard deviation of the difference over the pairs (n - 1); None with fewer than two.
    """

    value: float
    low: float
    high: float
    confidence: float
    resamples: int
    pairs: int
    spread: float | None

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def match_images(
    truth: GroundTruth, found: Sequence[Instance], image_ids: Sequence[int], iou_type: IouType, max_detections: int
) -> ImageMatches:
    """Matches detections to objects as the COCO protocol does, and keeps for every image what came out.

    Args:
        truth: The annotation file.
        found: Detections, as ``read_results`` gives them.
        image_ids: Images that were looked at.
        iou_type: What is compared.
        max_detections: Detections per image and category that count, best first.
    """
    ids = sorted(image_ids)
    per_category = match_with_pycocotools(truth, found, iou_type, ids, max_detections)
    return ImageMatches(tuple(ids), tuple(_join(images) for images in per_category if any(images)))


def _join(images: Sequence[MatchedImage | None]) -> CategoryMatches:
    present = [(place, one) for place, one in enumerate(images) if one is not None]
    objects = np.zeros(len(images), dtype=np.int64)
    for place, one in present:
        objects[place] = int((np.asarray(one["gtIgnore"]) == 0).sum())
    scores = np.concatenate([np.asarray(one["dtScores"], dtype=np.float64) for _, one in present])
    where = np.concatenate([np.full(len(one["dtScores"]), place, dtype=np.int64) for place, one in present])
    is_matched = np.concatenate([np.asarray(one["dtMatches"]) != 0 for _, one in present], axis=1)
    is_ignored = np.concatenate([np.asarray(one["dtIgnore"]) != 0 for _, one in present], axis=1)
    order = np.argsort(-scores, kind="mergesort")
    is_right, is_wrong = is_matched & ~is_ignored, ~is_matched & ~is_ignored
    return CategoryMatches(where[order], is_right[:, order], is_wrong[:, order], objects)


def _category_ap(matches: CategoryMatches, weights: FloatArray) -> float | None:
    num_objects = float(matches.objects @ weights)
    if not num_objects:
        return None
    counted = weights[matches.images]  # (D,)
    right = np.cumsum(matches.is_right * counted, axis=1)  # (T, D)
    wrong = np.cumsum(matches.is_wrong * counted, axis=1)
    precision = right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([precision, np.zeros((len(precision), 1))], axis=1)
    recall = right / num_objects
    return float(np.mean([row[np.searchsorted(at, RECALLS)] for row, at in zip(padded, recall, strict=True)]))


def paired_bootstrap(
    first: Sequence[ImageMatches],
    second: Sequence[ImageMatches],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ApDifference:
    """Percentile interval of the AP of ``first`` less that of ``second`` (Efron and Tibshirani, 1993, chapter 13).

    Every resample draws as many images as there are, with replacement, the same ones for both systems, and, with more
    than one pair of runs, as many pairs as there are. So with one pair the interval speaks of the images alone, not of
    what another seed would have given.

    Args:
        first: One entry per run.
        second: The runs that they are compared with, in the same order; all on the same images.
        resamples: How often to draw; an interval of 95 % needs hundreds.
        confidence: Share of the resamples that the interval holds, in (0, 1).
        seed: Of the draws.

    Raises:
        ValueError: If there is no pair, an uneven number, other images, nothing to be found, or a number out of range.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(f"resamples {resamples} must be >= 1, confidence {confidence} in (0, 1)")
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} runs against {len(second)}: as many pairs, at least one, are needed")
    image_ids = first[0].image_ids
    if any(one.image_ids != image_ids for one in (*first, *second)):
        raise ValueError("the runs looked at different images, so they cannot be compared image by image")
    differences = [_difference(*pair, None) for pair in zip(first, second, strict=True)]
    known = [value for value in differences if value is not None]
    if len(known) < len(differences):
        raise ValueError("no image holds an object, so AP is undefined")
    drawn = _resampled(first, second, resamples, np.random.default_rng(seed))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return ApDifference(float(np.mean(known)), float(low), float(high), confidence, resamples, len(known), spread)


def _resampled(
    first: Sequence[ImageMatches], second: Sequence[ImageMatches], resamples: int, random: np.random.Generator
) -> FloatArray:
    num_images = len(first[0].image_ids)
    drawn: list[float] = []
    while len(drawn) < resamples:
        weights = np.bincount(random.integers(num_images, size=num_images), minlength=num_images).astype(np.float64)
        chosen = random.integers(len(first), size=len(first))
        found = [_difference(first[pair], second[pair], weights) for pair in np.unique(chosen)]
        values = dict(zip(np.unique(chosen), found, strict=True))
        if None not in found:  # else no object was drawn
            drawn.append(float(np.mean([values[pair] for pair in chosen])))
    return np.asarray(drawn, dtype=np.float64)


def _difference(first: ImageMatches, second: ImageMatches, weights: FloatArray | None) -> float | None:
    one, other = first.average_precision(weights), second.average_precision(weights)
    return None if one is None or other is None else one - other
