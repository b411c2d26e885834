"""The COCO detection protocol: precision from detections by one of two back-ends, and the numbers made of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import faster_coco_eval
import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from r3cnn.evaluation.ground_truth import Dataset

Backend = Literal["faster_coco_eval", "pycocotools"]
IouType = Literal["bbox", "segm"]
Stats = dict[str, float | None]

AREAS = ("all", "small", "medium", "large")
IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10))


@dataclass(frozen=True)
class Precision:
    """Interpolated precision of one evaluation.

    Attributes:
        values: (T, R, K, A) float64 for T IoU thresholds 0.5 … 0.95, R = 101 recall levels, K categories in ascending
            order of their ids, A areas (all, small, medium, large); in [0, 1], or -1 where there is no ground truth.
        category_ids: The K ids.
    """

    values: NDArray[np.float64]
    category_ids: tuple[int, ...]

    def summary(self) -> Stats:
        """AP over IoU 0.50:0.95, at 0.50 and 0.75, and by object size; None where there is no ground truth."""
        at = {f"ap{round(100 * value)}": number for number, value in enumerate(IOU_THRESHOLDS)}
        stats = {"ap": _mean(self.values[..., 0])}
        stats |= {name: _mean(self.values[at[name], :, :, 0]) for name in ("ap50", "ap75")}
        stats |= {f"ap_{name}": _mean(self.values[..., area]) for area, name in enumerate(AREAS) if name != "all"}
        return stats

    def per_category(self) -> dict[int, float | None]:
        """AP over IoU 0.50:0.95 and all sizes by category id."""
        return {key: _mean(self.values[:, :, number, 0]) for number, key in enumerate(self.category_ids)}


def _mean(values: NDArray[np.float64]) -> float | None:
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else None


@dataclass(frozen=True)
class Protocol:
    """What is evaluated.

    Attributes:
        image_ids: Images that were seen; ground truth of others is left out.
        category_ids: Categories, by their ids in the annotation file.
        max_detections: Detections per image and category, best first.
        backend: Library that matches and accumulates; both give the same numbers.
    """

    image_ids: Sequence[int]
    category_ids: Sequence[int]
    max_detections: int = 100
    backend: Backend = "faster_coco_eval"

    def precision(self, truth: Dataset, found: Dataset, iou_type: IouType) -> Precision:
        """Evaluates detections against ground truth; both are written into by the libraries."""
        category_ids = tuple(sorted(self.category_ids))
        run = _run_faster if self.backend == "faster_coco_eval" else _run_pycocotools
        values = run(truth, found, iou_type, (sorted(self.image_ids), list(category_ids), [self.max_detections]))
        return Precision(values[..., 0], category_ids)


Choice = tuple[list[int], list[int], list[int]]


def _run_faster(truth: Dataset, found: Dataset, iou_type: IouType, choice: Choice) -> NDArray[np.float64]:
    evaluator = faster_coco_eval.COCOeval_faster(faster_coco_eval.COCO(truth), faster_coco_eval.COCO(found), iou_type)
    evaluator.params.imgIds, evaluator.params.catIds, evaluator.params.maxDets = choice
    evaluator.evaluate()
    evaluator.accumulate()
    return cast(NDArray[np.float64], np.asarray(evaluator.eval["precision"]))


def _run_pycocotools(truth: Dataset, found: Dataset, iou_type: IouType, choice: Choice) -> NDArray[np.float64]:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress without a way to turn that off
        indexed = []
        for dataset in (truth, found):
            coco = COCO()
            coco.dataset = dataset
            coco.createIndex()
            indexed.append(coco)
        evaluator = COCOeval(*indexed, iou_type)
        evaluator.params.imgIds, evaluator.params.catIds, evaluator.params.maxDets = choice
        evaluator.evaluate()
        evaluator.accumulate()
    return cast(NDArray[np.float64], evaluator.eval["precision"])
