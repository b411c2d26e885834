"""The COCO detection protocol: precision from detections by one of two back-ends, and the numbers made of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple, TypedDict

import faster_coco_eval
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from r3cnn.evaluation.ground_truth import GroundTruth, Instance
from r3cnn.names import Id

Backend = Literal["faster_coco_eval", "pycocotools"]
IouType = Literal["bbox", "segm"]
Stats = dict[str, float | None]
Find = Callable[[Sequence[int]], Iterable[Instance]]

AREAS = ("all", "small", "medium", "large")
IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))
BACKENDS: tuple[Backend, ...] = ("faster_coco_eval", "pycocotools")
TOLERANCE = 1e-12
RECALLED_AT = (1, 10)  # COCO's further numbers of detections, at which its recall is told


class BackendMismatchError(RuntimeError):
    """The two back-ends do not give the same numbers."""


@dataclass(frozen=True)
class Precision:
    """Interpolated precision of one evaluation.

    Attributes:
        values: (T, R, K, A) float64 for T IoU thresholds 0.5 … 0.95, R = 101 recall levels, K categories in ascending
            order of their ids, A areas (all, small, medium, large); in [0, 1], or -1 where there is no ground truth.
        category_ids: The K ids.
    """

    values: NDArray[np.float64]
    category_ids: tuple[Id, ...]

    @classmethod
    def joined(cls, parts: Sequence[Precision]) -> Precision:
        """Of further categories, whose ids ascend from part to part."""
        values = np.concatenate([part.values for part in parts], axis=2)
        return cls(values, tuple(key for part in parts for key in part.category_ids))

    def summary(self) -> Stats:
        """AP over IoU 0.50:0.95, at 0.50 and 0.75, and by object size; None where there is no ground truth."""
        at = {f"ap{round(100 * value)}": number for number, value in enumerate(IOU_THRESHOLDS)}
        stats = {"ap": _mean(self.values[..., 0])}
        stats |= {name: _mean(self.values[at[name], :, :, 0]) for name in ("ap50", "ap75")}
        stats |= {f"ap_{name}": _mean(self.values[..., area]) for area, name in enumerate(AREAS) if name != "all"}
        return stats

    def per_category(self) -> dict[Id, float | None]:
        """AP over IoU 0.50:0.95 and all sizes by category id."""
        return {key: _mean(self.values[:, :, number, 0]) for number, key in enumerate(self.category_ids)}


def _mean(values: NDArray[np.float64]) -> float | None:
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else None


@dataclass(frozen=True)
class Protocol:
    """What is evaluated.

    Attributes:
        image_ids: Images that were seen, ascending, in groups that are matched one after the other, since the back-ends
            take a kilobyte for every detection; ground truth of others is left out.
        category_ids: Categories, by their ids in the annotation file.
        max_detections: Detections per image and category, best first.
        backend: Library that matches and accumulates; both give the same numbers.
        is_verified: Run the other back-end as well and compare everything that the two give.
    """

    image_ids: Sequence[Sequence[int]]
    category_ids: Sequence[Id]
    max_detections: int = 100
    backend: Backend = "faster_coco_eval"
    is_verified: bool = False

    def precision(self, truth: GroundTruth, find: Find, iou_type: IouType) -> Precision:
        """Evaluates detections against ground truth.

        Args:
            truth: The annotation file.
            find: Gives the detections in some images.
            iou_type: What is compared.

        Raises:
            BackendMismatchError: If it is verified and a precision or a recall, of which all statistics are means,
                differs by more than 1e-12: at any IoU threshold, category, object size, or number of detections.
        """
        numbering = Numbering.of(chain(*self.image_ids), self.category_ids)
        limits = [count for count in RECALLED_AT if self.is_verified and count < self.max_detections]
        other = next(backend for backend in BACKENDS if backend != self.backend)

        def run(backend: Backend) -> Curves:  # the libraries write into what they are given
            pairs = (numbering.pair(truth, find(part), part) for part in self.image_ids)
            return _RUNS[backend](pairs, iou_type, [*limits, self.max_detections])

        curves = run(self.backend)
        if self.is_verified:
            _compare(curves, run(other), iou_type, (self.backend, other))
        return Precision(curves.precision[..., -1], tuple(numbering.categories))


class Dataset(TypedDict):
    """The content of a COCO file, as far as COCO evaluators need it."""

    images: list[dict[str, int]]
    categories: list[dict[str, object]]
    annotations: list[Instance]


Pair = tuple[Dataset, Dataset]


@dataclass(frozen=True)
class Numbering:
    """Images and categories as the back-ends see them: numbered from 1, in the order of their ids.

    Ids of files may be larger than what a double holds, negative, or text. Annotations are numbered as well: both
    libraries read the match with one of id 0 as no match.

    Attributes:
        images: Number of each image that is evaluated, by its id.
        categories: Number of each category, by its id.
    """

    images: dict[int, int]
    categories: dict[Id, int]

    @classmethod
    def of(cls, image_ids: Iterable[int], category_ids: Iterable[Id]) -> Numbering:
        """Numbers ids in their order, which decides between detections of equal score."""
        images = {one: number for number, one in enumerate(sorted(image_ids), start=1)}
        return cls(images, {one: number for number, one in enumerate(sorted(category_ids), start=1)})

    def pair(self, truth: GroundTruth, found: Iterable[Instance], image_ids: Sequence[int]) -> Pair:
        """COCO content of what is there and of what was found in some images."""
        return self.dataset(truth, truth.annotations, image_ids), self.dataset(truth, found, image_ids)

    def dataset(self, truth: GroundTruth, instances: Iterable[Instance], image_ids: Sequence[int]) -> Dataset:
        """COCO content with copies of those ``instances`` that are of some of the images and of these categories."""
        images = {one: self.images[one] for one in image_ids}
        chosen = [one for one in instances if one["image_id"] in images and one["category_id"] in self.categories]
        return {
            "images": [
                {"id": number, "height": truth.images[one][0], "width": truth.images[one][1]}
                for one, number in images.items()
            ],
            "categories": [{"id": number, "name": str(one)} for one, number in self.categories.items()],
            "annotations": [
                {
                    **one,
                    "id": number,
                    "image_id": images[one["image_id"]],
                    "category_id": self.categories[one["category_id"]],
                }
                for number, one in enumerate(chosen, start=1)
            ],
        }


class Curves(NamedTuple):
    """What a back-end gives, -1 where there is no ground truth.

    Attributes:
        precision: (T, R, K, A, M) float64, M numbers of detections.
        recall: (T, K, A, M) float64.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def _compare(first: Curves, second: Curves, iou_type: IouType, names: tuple[Backend, Backend]) -> None:
    for name, one, other in zip(Curves._fields, first, second, strict=True):
        if one.shape != other.shape:
            raise BackendMismatchError(
                f"{iou_type} {name} has shape {one.shape} by {names[0]}, {other.shape} by {names[1]}"
            )
        far = np.abs(one - other)
        if one.size and not far.max() <= TOLERANCE:  # a NaN is no agreement either
            place = np.unravel_index(int(np.nanargmax(np.where(np.isnan(far), np.inf, far))), far.shape)
            raise BackendMismatchError(
                f"the back-ends disagree about {iou_type} {name} in {int((~(far <= TOLERANCE)).sum())} of {far.size} "
                f"entries, most at {[int(index) for index in place]}: "
                f"{names[0]} {one[place]}, {names[1]} {other[place]}"
            )


def _run_faster(pairs: Iterable[Pair], iou_type: IouType, limits: list[int]) -> Curves:
    evaluations: list[tuple[list[object], list[int]]] = []
    for pair in pairs:
        truth, found = map(faster_coco_eval.COCO, pair)
        evaluator = faster_coco_eval.COCOeval_faster(truth, found, iou_type, separate_eval=True)
        evaluator.params.maxDets = limits
        evaluator.evaluate()
        evaluations.append((evaluator._evalImgs_cpp, evaluator.params.imgIds))
    evaluator._evalImgs_cpp, evaluator._paramsEval.imgIds = _joined(evaluations, len(evaluator.params.catIds))
    evaluator.accumulate()
    return Curves(np.asarray(evaluator.eval["precision"]), np.asarray(evaluator.eval["recall"]))


def _run_pycocotools(pairs: Iterable[Pair], iou_type: IouType, limits: list[int]) -> Curves:
    evaluations: list[tuple[list[object], list[int]]] = []
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress without a way to turn that off
        for pair in pairs:
            evaluator = _pycocotools(pair, iou_type, limits)
            evaluations.append((evaluator.evalImgs, evaluator.params.imgIds))
        evaluator.evalImgs, evaluator._paramsEval.imgIds = _joined(evaluations, len(evaluator.params.catIds))
        evaluator.accumulate(evaluator._paramsEval)
    return Curves(evaluator.eval["precision"], evaluator.eval["recall"])


def _joined(parts: Sequence[tuple[list[object], list[int]]], categories: int) -> tuple[list[object], list[int]]:
    """What was found in all images, by category, area and image, and the images' numbers."""
    found = [
        one
        for group in range(categories * len(AREAS))
        for part, images in parts
        for one in part[group * len(images) : (group + 1) * len(images)]
    ]
    return found, [image for _, images in parts for image in images]


def _pycocotools(pair: Pair, iou_type: IouType, limits: list[int], areas: int = len(AREAS)) -> COCOeval:
    """An evaluator of the first so many areas that has matched."""
    indexed = []
    for dataset in pair:
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
        indexed.append(coco)
    evaluator = COCOeval(*indexed, iou_type)
    evaluator.params.maxDets = limits
    evaluator.params.areaRng = evaluator.params.areaRng[:areas]
    evaluator.evaluate()
    return evaluator


class MatchedImage(TypedDict):
    """What pycocotools found out about one category in one image, at T IoU thresholds, for D detections, G objects."""

    dtScores: Sequence[float]  # (D,) best first
    dtMatches: NDArray[np.float64]  # (T, D) id of the object that each found, 0: none
    dtIgnore: NDArray[np.bool_]  # (T, D) whether the detection does not count
    gtIgnore: NDArray[np.int64]  # (G,) whether the object need not be found


def match_with_pycocotools(
    truth: GroundTruth, found: Sequence[Instance], iou_type: IouType, image_ids: Sequence[int], max_detections: int
) -> list[list[MatchedImage | None]]:
    """Matches detections of all sizes to ground truth.

    Returns:
        For every category and every image, in ascending order of their ids; None where it has neither an object nor a
        detection of that category.
    """
    numbering = Numbering.of(image_ids, truth.category_names)
    has_objects = {(one["image_id"], one["category_id"]) for one in truth.annotations}
    matchable: list[Instance] = []
    scores: dict[tuple[int, Id], list[float]] = {}  # of what has nothing to match: taking it along doubles the time
    for one in found:
        place = one["image_id"], one["category_id"]
        if place in has_objects:
            matchable.append(one)
        elif place[0] in numbering.images and place[1] in numbering.categories:
            scores.setdefault(place, []).append(one["score"])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = _pycocotools(numbering.pair(truth, matchable, image_ids), iou_type, [max_detections], areas=1)
    images, flat = len(numbering.images), evaluator.evalImgs  # category by image, of all sizes
    matched = [flat[k * images : (k + 1) * images] for k in range(len(numbering.categories))]
    for (image, category), unmatched in scores.items():
        best = sorted(unmatched, reverse=True)[:max_detections]
        none = np.zeros((len(IOU_THRESHOLDS), len(best)))
        matched[numbering.categories[category] - 1][numbering.images[image] - 1] = {
            "dtScores": best,
            "dtMatches": none,
            "dtIgnore": none.astype(bool),
            "gtIgnore": np.zeros(0, dtype=np.int64),
        }
    return matched


_RUNS = {"faster_coco_eval": _run_faster, "pycocotools": _run_pycocotools}
