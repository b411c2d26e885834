"""COCO average precision of boxes and masks after every loop, as a torchmetrics metric."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, get_args

from torchmetrics import Metric

from r3cnn.batch import Batch
from r3cnn.evaluation.ground_truth import GroundTruth, Instance, load_ground_truth
from r3cnn.evaluation.protocol import Backend, IouType, Precision, Protocol, Stats
from r3cnn.evaluation.ranks import broadcast_from_first, gather_by_key
from r3cnn.evaluation.records import AreaFrom, ImageRecord, ResultEntry, entries_of, instances_of, record_image
from r3cnn.structures import Detections


class Metrics(TypedDict):
    """Content of ``metrics.json``: fractions in [0, 1], None where there is no ground truth.

    ``box`` and ``mask`` are those of the last loop; ``loops`` holds every loop, counted from "1".
    """

    box: Stats
    mask: Stats
    per_class: dict[str, Stats]
    loops: dict[str, dict[str, Stats]]
    images: dict[str, int]


@dataclass(frozen=True)
class EvaluationResult:
    """What one evaluation gives.

    Attributes:
        metrics: Content of ``metrics.json``; equal on all ranks.
        detections: Entries of ``detections.json``, those of the last loop by image id; empty on ranks other than 0.
    """

    metrics: Metrics
    detections: list[ResultEntry]


class CocoAP(Metric):
    """Collects detections as arrays and mask codes, and evaluates them against the original annotation file.

    The ground truth is that file less its rejected records: the ones that the data set's checks refused, and that it
    was told to skip. It is read at once, so a file that cannot be evaluated is noticed before any training.

    The result does not depend on the number of ranks or on the order of the images: all records come together on rank 0
    by image id, so an image that two ranks saw counts once.

    Args:
        annotations: COCO annotation file.
        category_ids: The file's category id of each label.
        classes: Name of each label; the file may then lack some of them, which have no ground truth. Without it they
            are named as in the file.
        rejected_images: Positions in the file's ``images`` of records that are no ground truth.
        rejected_annotations: Positions in the file's ``annotations`` of records that are no ground truth.
        backend: Library that matches and accumulates; both give the same numbers.
        area_from: Area that sorts a detected mask into small, medium or large: its own, or its box's (the convention
            behind most published small/medium/large mask figures).
        max_detections: Detections per image and category that count.

    Raises:
        ValueError: For an unknown option, a file that is no COCO file, or a category id without
            a name.
        FileNotFoundError: If there is no such file.
    """

    full_state_update = False

    def __init__(
        self,
        annotations: Path,
        category_ids: Sequence[int],
        *,
        classes: Sequence[str] | None = None,
        rejected_images: Collection[int] = (),
        rejected_annotations: Collection[int] = (),
        backend: Backend = "faster_coco_eval",
        area_from: AreaFrom = "mask",
        max_detections: int = 100,
    ) -> None:
        # The state is no tensor: this class gathers it itself, and a rank without any image must take part as well.
        super().__init__(sync_on_compute=False, compute_with_cache=False)
        for name, value, kind in (("backend", backend, Backend), ("area_from", area_from, AreaFrom)):
            if value not in get_args(kind):
                raise ValueError(f"{name} must be one of {get_args(kind)}, got {value!r}")
        if max_detections < 1:
            raise ValueError(f"max_detections must be at least 1, got {max_detections}")
        self.annotations = Path(annotations)
        if not self.annotations.is_file():
            raise FileNotFoundError(f"annotation file {self.annotations} does not exist")
        self.category_ids = tuple(category_ids)
        self.backend = backend
        self.area_from = area_from
        self.max_detections = max_detections
        self.records: dict[int, ImageRecord] = {}
        self._truth = load_ground_truth(
            self.annotations, rejected_images=rejected_images, rejected_annotations=rejected_annotations
        )
        self._names = self._truth.category_names
        if classes is not None:
            self._names = dict(zip(self.category_ids, classes, strict=True))
        missing = sorted(set(self.category_ids) - set(self._names))
        if missing:
            raise ValueError(f"{self.annotations} has no category {missing[0]}, which category_ids names")

    def update(self, batch: Batch, per_loop: Sequence[Sequence[Detections]]) -> None:
        """Adds the detections of a batch; masks become codes at once.

        Args:
            batch: The images; only ids and sizes are used.
            per_loop: Detections after each loop of each image, ``per_loop[loop][image]``.

        Raises:
            ValueError: If a loop has more or fewer entries than the batch has images, or there is no loop.
        """
        if not per_loop:
            raise ValueError("per_loop is empty: the detections of at least one loop are needed")
        for loop, found in enumerate(per_loop, start=1):
            if len(found) != len(batch):
                raise ValueError(f"loop {loop} has detections of {len(found)} images, the batch holds {len(batch)}")
        for number, image_id in enumerate(batch.image_ids):
            loops = [found[number] for found in per_loop]
            self.records[image_id] = record_image(loops, batch.sizes[number], batch.original_sizes[number])

    def compute(self) -> EvaluationResult:
        """Evaluates all loops over the images of all ranks.

        Raises:
            ValueError: If an image is not in the annotation file or has another size there, or numbers of loops differ.
        """
        records = gather_by_key(self.records)
        metrics = broadcast_from_first(lambda: self._evaluate(records or {}))
        detections = [
            entry
            for image_id, record in (records or {}).items()
            for entry in entries_of(image_id, record.loops[-1], record.size, self.category_ids)
        ]
        return EvaluationResult(metrics, detections)

    def reset(self) -> None:
        """Forgets all detections; the ground truth stays loaded."""
        super().reset()
        self.records = {}

    def _wrap_compute(self, compute: Callable[[], EvaluationResult]) -> Callable[[], EvaluationResult]:
        """Leaves ``compute`` as it is: torchmetrics' wrapper syncs tensor states and refuses frozen results."""
        return compute

    def _evaluate(self, records: dict[int, ImageRecord]) -> Metrics:
        truth = self._truth
        num_loops = _check(records, truth, self.annotations)
        loops = [
            (self._precision(truth, records, loop, "bbox"), self._precision(truth, records, loop, "segm"))
            for loop in range(num_loops)
        ]
        summaries = {str(n): {"box": box.summary(), "mask": mask.summary()} for n, (box, mask) in enumerate(loops, 1)}
        box_aps, mask_aps = (precision.per_category() for precision in loops[-1])
        per_class: dict[str, Stats] = {
            self._names[key]: {"box": box_aps[key], "mask": mask_aps[key]} for key in self.category_ids
        }
        images = {"seen": len(records), "total": len(truth.images)}
        box, mask = (precision.summary() for precision in loops[-1])
        return {"box": box, "mask": mask, "per_class": per_class, "loops": summaries, "images": images}

    def _precision(
        self, truth: GroundTruth, records: dict[int, ImageRecord], loop: int, iou_type: IouType
    ) -> Precision:
        found: list[Instance] = []
        for image_id, record in records.items():
            detections = record.loops[loop]
            found += instances_of(image_id, detections, record.size, self.category_ids, iou_type, self.area_from)
        for number, instance in enumerate(found, start=1):
            instance["id"] = number
        protocol = Protocol(list(records), self.category_ids, self.max_detections, self.backend)
        return protocol.precision(truth.dataset(truth.annotations), truth.dataset(found), iou_type)


def _check(records: dict[int, ImageRecord], truth: GroundTruth, path: Path) -> int:
    """Number of loops, once all records are known to fit together and to the annotation file."""
    for image_id, record in records.items():
        if image_id not in truth.images:
            raise ValueError(f"image {image_id} is not in {path}")
        if record.size != truth.images[image_id]:
            raise ValueError(f"image {image_id} is {record.size} pixels, {path} says {truth.images[image_id]}")
    counts = sorted({len(record.loops) for record in records.values()})
    if len(counts) > 1:
        raise ValueError(
            f"images were evaluated with {counts[0]} and with {counts[-1]} loops: all need the same number"
        )
    return counts[0] if counts else 1


def write_metrics(result: EvaluationResult, path: Path) -> None:
    """Writes ``metrics.json``; undefined figures are null."""
    path.write_text(json.dumps(result.metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_detections(result: EvaluationResult, path: Path) -> None:
    """Writes ``detections.json``, a COCO results file with floats that read back exactly."""
    path.write_text(json.dumps(result.detections, allow_nan=False) + "\n", encoding="utf-8")
