"""How sure a difference in AP is: the images of the validation set drawn anew, with replacement, many times over."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from r3cnn.evaluation.ground_truth import GroundTruth, Instance
from r3cnn.evaluation.protocol import IouType, MatchedImage, match_with_pycocotools

FloatArray = NDArray[np.float64]
RECALLS = np.linspace(0, 1, 101)
AT_ONCE = 2**21  # resamples times detections of a category, whose tables take 16 MB each


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

    def average_precision(self, weights: FloatArray | None = None) -> FloatArray:
        """COCO's AP (IoU 0.50:0.95, all sizes) in [0, 1] of R choices of images, which count ``weights[r, i]`` times.

        Args:
            weights: (R, I) how often each image counts, whole numbers >= 0; None: once each, R = 1.

        Returns:
            (R,), NaN where no category has an object.
        """
        counts = np.ones((1, len(self.image_ids))) if weights is None else weights
        total, defined = np.zeros(len(counts)), np.zeros(len(counts))
        for matches in self.categories:
            found, has_objects = _category_ap(matches, counts)
            total, defined = total + found, defined + has_objects
        return np.divide(total, defined, out=np.full(len(counts), np.nan), where=defined > 0)

    @property
    def has_objects(self) -> NDArray[np.bool_]:
        """(I,) whether an image holds anything to be found."""
        objects = [matches.objects for matches in self.categories]
        return np.sum([np.zeros(len(self.image_ids)), *objects], axis=0) > 0


@dataclass(frozen=True)
class Resampled:
    """AP of one run over its images, and over images drawn anew from them.

    Attributes:
        images: Names the images and those with objects, so the draws; equal for runs that can be compared.
        value: AP over all images, in [0, 1]; None if no image holds an object.
        drawn: (R,) AP of each resample; empty without any object.
    """

    images: str
    value: float | None
    drawn: FloatArray


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


def _category_ap(matches: CategoryMatches, weights: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(R,) AP of one category under each choice of images, 0 where it has no object, and whether it has any.

    Precision is highest where something right was found, so these detections are all that is looked at: (R, P).
    """
    num_objects = weights @ matches.objects.astype(np.float64)
    has_objects, total = num_objects > 0, np.zeros(len(weights))
    most = int(num_objects.max(initial=0))
    if not matches.is_right.any() or not most:
        return total, has_objects
    # Recall levels that are reached with 0, 1, … right ones: (R, most + 1).
    recalls = np.arange(most + 1) / np.where(has_objects, num_objects, 1)[:, None]
    levels = np.searchsorted(RECALLS, recalls.ravel(), side="right").reshape(recalls.shape)
    counted = weights[:, matches.images]
    up_to = np.cumsum(counted, axis=1)
    for is_right, is_wrong in zip(matches.is_right, matches.is_wrong, strict=True):
        at, ignored = np.flatnonzero(is_right), np.flatnonzero(~(is_right | is_wrong))
        if not len(at):
            continue
        right, seen = np.cumsum(counted[:, at], axis=1), up_to[:, at]
        if len(ignored):
            left_out = np.cumsum(np.pad(counted[:, ignored], ((0, 0), (1, 0))), axis=1)
            seen = seen - left_out[:, np.searchsorted(ignored, at)]
        precision = right / (seen + np.spacing(1))
        highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.take_along_axis(levels, right.astype(np.int64), axis=1)
        total += (highest * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
    return np.where(has_objects, total / (len(RECALLS) * len(matches.is_right)), 0.0), has_objects


def resample(matches: ImageMatches, resamples: int, seed: int) -> Resampled:
    """Draws as many images as there are, with replacement, so many times, and scores each choice.

    Choices without an object, for which AP is undefined, are drawn again. Runs on the same images get the same draws.
    """
    has_objects, num_images = matches.has_objects, len(matches.image_ids)
    images = hashlib.sha256(repr((matches.image_ids, has_objects.tolist())).encode()).hexdigest()
    if not has_objects.any():
        return Resampled(images, None, np.zeros(0))
    random, drawn = np.random.default_rng(seed), [np.zeros(0)]
    most = max(1, AT_ONCE // max(num_images, *(len(one.images) for one in matches.categories)))
    while (missing := resamples - sum(map(len, drawn))) > 0:
        choices = [random.integers(num_images, size=num_images) for _ in range(min(missing, most))]
        weights = np.stack([np.bincount(choice, minlength=num_images) for choice in choices]).astype(np.float64)
        drawn.append(matches.average_precision(weights[weights @ has_objects > 0]))
    return Resampled(images, float(matches.average_precision()[0]), np.concatenate(drawn))


def paired_bootstrap(
    first: Sequence[Resampled], second: Sequence[Resampled], *, confidence: float = 0.95, seed: int = 0
) -> ApDifference:
    """Percentile interval of the AP of ``first`` less that of ``second`` (Efron and Tibshirani, 1993, chapter 13).

    Every resample has as many images as there are, the same ones for both systems, and, with more than one pair of
    runs, as many pairs as there are, drawn with replacement. So with one pair the interval speaks of the images alone,
    not of what another seed would have given.

    Args:
        first: One entry per run.
        second: The runs that they are compared with, in the same order; all of the same draws of the same images.
        confidence: Share of the resamples that the interval holds, in (0, 1).
        seed: Of the draws of pairs.

    Raises:
        ValueError: If there is no pair, an uneven number, other images, nothing to be found, or a number out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must be in (0, 1)")
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} runs against {len(second)}: as many pairs, at least one, are needed")
    if len({one.images for one in (*first, *second)}) > 1:
        raise ValueError("the runs looked at different images, so they cannot be compared image by image")
    pairs = [(one, other) for one, other in zip(first, second, strict=True)]
    known = [one.value - other.value for one, other in pairs if one.value is not None and other.value is not None]
    if len(known) < len(pairs):
        raise ValueError("no image holds an object, so AP is undefined")
    differences = np.stack([one.drawn - other.drawn for one, other in pairs])  # (pairs, R)
    resamples = differences.shape[1]
    chosen = np.random.default_rng([seed, len(pairs)]).integers(len(pairs), size=(len(pairs), resamples))
    drawn = np.take_along_axis(differences, chosen, axis=0).mean(axis=0)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    spread = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return ApDifference(float(np.mean(known)), float(low), float(high), confidence, resamples, len(known), spread)
