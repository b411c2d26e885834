"""COCO average precision of boxes and masks after every loop."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from r3cnn.batch import Batch
from r3cnn.data.checks import OnBadAnnotation
from r3cnn.evaluation.ground_truth import GroundTruth, Instance, load_ground_truth
from r3cnn.evaluation.metrics import EvaluationResult, Metrics
from r3cnn.evaluation.protocol import Backend, IouType, Precision, Protocol, Stats
from r3cnn.evaluation.ranks import Ranks
from r3cnn.evaluation.recall import ImageRecall, average_recall, checked_limits, image_recall, objects_by_image
from r3cnn.evaluation.records import AreaFrom, ImageRecord, LoopRecord, instances_of, ranked_boxes, record_image
from r3cnn.evaluation.rle import TextStore
from r3cnn.evaluation.seen import Seen, merge
from r3cnn.ranges import check_range
from r3cnn.schedule import ScoreFusion
from r3cnn.structures import Detections, Id, ScoredRois

Precisions = tuple[Precision, Precision]
IMAGES_AT_A_TIME, DETECTIONS_AT_A_TIME = 64, 2**14
"""That travel between ranks, those of all ranks together, and that are scored."""
MASKS_IN_MEMORY = 384 * 2**20
"""Bytes of their codes; 5,000 images with three loops of 100 masks take 300 MB, or 2 GB if the masks are noise."""


class CocoAP:
    """Collects detections as arrays and mask codes, and evaluates them against the original annotation file.

    The ground truth is that file less the bad records that the data set was told to skip. It is read at once, so a
    file that cannot be evaluated is noticed before any training.

    The result does not depend on the number of ranks or on the order of the images: all records come together on rank 0
    by image id. They must be those of the images that were handed out, each of them once.

    Args:
        annotations: COCO annotation file.
        category_ids: The file's category id of each label.
        classes: Name of each label; the file may then lack some of them, which have no ground truth. Without it they
            are named as in the file.
        on_bad_annotation: ``error`` or ``skip``, as for the data set.
        max_overhang: As for the data set: share of a side of its image by which a box may reach over it.
        backend: Library that matches and accumulates; both give the same numbers.
        verify_backend: Run the other back-end as well and require that all statistics agree to 1e-12.
        area_from: Area that sorts a detected mask into small, medium or large: its own, or its box's (the convention
            behind most published small/medium/large mask figures).
        max_detections: Detections per image and category that count.
        recall_at: Numbers of proposals, ascending, at which their average recall is told, if they are given.
        timeout_minutes: How long ranks wait for the slowest of them and then for the scores, over a connection of their
            own; whatever the time-out of the process group.

    Raises:
        ValueError: For an unknown option, a file that is no COCO file, or a category id without
            a name.
        FileNotFoundError: If there is no such file.
    """

    def __init__(
        self,
        annotations: Path,
        category_ids: Sequence[Id],
        *,
        classes: Sequence[str] | None = None,
        on_bad_annotation: OnBadAnnotation = "error",
        max_overhang: float = math.inf,
        backend: Backend = "faster_coco_eval",
        verify_backend: bool = False,
        area_from: AreaFrom = "mask",
        max_detections: int = 100,
        recall_at: Sequence[int] = (),
        timeout_minutes: float = 180.0,
    ) -> None:
        check_range("[1, inf)", max_detections=max_detections)
        check_range("[0.001, 525600]", timeout_minutes=timeout_minutes)  # a year
        self.annotations = Path(annotations)
        if not self.annotations.is_file():
            raise FileNotFoundError(f"annotation file {self.annotations} does not exist")
        self.category_ids = tuple(category_ids)
        self.backend = backend
        self.verify_backend = verify_backend
        self.area_from = area_from
        self.max_detections = max_detections
        self.recall_at = checked_limits(recall_at)
        self._ranks = Ranks(timedelta(minutes=timeout_minutes))
        self._seen: Seen[ImageRecord] = Seen()
        self._masks = TextStore(MASKS_IN_MEMORY)
        self._truth = load_ground_truth(self.annotations, on_bad_annotation, max_overhang)
        self._objects = objects_by_image(self._truth.annotations)
        self._names = self._truth.category_names
        if classes is not None:
            self._names = dict(zip(self.category_ids, classes, strict=True))
        missing = sorted(set(self.category_ids) - set(self._names))
        if missing:
            raise ValueError(f"{self.annotations} has no category {missing[0]}, which category_ids names")

    def start(self, handed_out: Collection[int] | None = None) -> None:
        """Forgets all detections and notes what is to come; called on all ranks at once, so they are connected here.

        Args:
            handed_out: Ids of the images that this rank is given, which ``compute`` insists on; None if not known.
        """
        self.reset()
        self._ranks.open()
        self._seen = Seen(None if handed_out is None else tuple(handed_out))

    def update(
        self,
        batch: Batch,
        per_loop: Sequence[Sequence[Detections]],
        *,
        fused: Mapping[ScoreFusion, Sequence[Sequence[Detections]]] | None = None,
        candidates: Sequence[ScoredRois] = (),
    ) -> None:
        """Adds the detections of a batch; masks become codes at once.

        Args:
            batch: The images; only ids and sizes are used.
            per_loop: Detections after each loop of each image, ``per_loop[loop][image]``.
            fused: The same by other rules of score fusion, by the rule's name.
            candidates: Proposals, then what each loop made of them; their recall is told at ``recall_at``.

        Raises:
            ValueError: If a loop has more or fewer entries than the batch has images, or there is no loop.
        """
        if not per_loop:
            raise ValueError("per_loop is empty: the detections of at least one loop are needed")
        rules: Mapping[ScoreFusion, Sequence[Sequence[Detections]]] = fused or {}
        for loops in (per_loop, *rules.values()):
            for loop, found in enumerate(loops, start=1):
                if len(found) != len(batch):
                    raise ValueError(f"loop {loop} has detections of {len(found)} images, the batch holds {len(batch)}")
        recalls = self._recalls(batch, candidates if self.recall_at else ())
        for number, image_id in enumerate(batch.image_ids):
            own = [found[number] for found in per_loop]
            others = {rule: [found[number] for found in loops] for rule, loops in rules.items()}
            sizes = batch.sizes[number], batch.original_sizes[number]
            record = record_image(own, *sizes, fused=others, recall=recalls[number])
            record.move_masks_to(self._masks)
            self._seen.add(image_id, record)

    def compute(self) -> EvaluationResult:
        """Evaluates all loops over the images of all ranks.

        Raises:
            ValueError: If an image is missing, came twice, was not handed out, is not in the annotation file or has
                another size there, or numbers of loops differ.
            TimeoutError: If another rank does not answer.
        """
        parts = []
        for part in self._ranks.gather(self._seen.parts(IMAGES_AT_A_TIME)):
            for record in part.records.values():
                record.move_masks_to(self._masks)
            parts.append(part)
        metrics = self._ranks.from_first(lambda: self._evaluate(merge(parts)))
        records = merge(parts)
        self._seen.records = records  # those of the other ranks are where they can be evaluated again
        return EvaluationResult(metrics, records, self.category_ids, self._truth.file_ids)

    def reset(self) -> None:
        """Forgets all detections; the ground truth stays loaded."""
        self._seen, self._masks = Seen(), TextStore(MASKS_IN_MEMORY)

    def _evaluate(self, records: dict[int, ImageRecord]) -> Metrics:
        truth = self._truth
        num_loops = _check(records, truth, self.annotations)
        loops = [self._precisions(records, [one.loops[loop] for one in records.values()]) for loop in range(num_loops)]
        box_aps, mask_aps = (precision.per_category() for precision in loops[-1])
        per_class: dict[str, Stats] = {
            self._names[key]: {"box": box_aps[key], "mask": mask_aps[key]} for key in self.category_ids
        }
        summaries = {str(number): summary(pair) for number, pair in enumerate(loops, start=1)}
        last = summaries[str(num_loops)]
        metrics: Metrics = {
            "box": last["box"],
            "mask": last["mask"],
            "per_class": per_class,
            "loops": summaries,
            "images": {"seen": len(records), "total": len(truth.images)},
        }
        self._add_fusions(metrics, records, loops)
        recalls = [record.recall for record in records.values() if record.recall is not None]
        if recalls:
            metrics["proposal_recall"] = average_recall(recalls, self.recall_at)
        return metrics

    def _add_fusions(self, metrics: Metrics, records: dict[int, ImageRecord], own: Sequence[Precisions]) -> None:
        """AP of the loops under every further rule; what a rule does not change, as after one loop, is not redone."""
        rules = sorted({rule for record in records.values() for rule in record.fused})
        for rule in rules:
            loops: dict[str, dict[str, Stats]] = {}
            for loop, precisions in enumerate(own):
                found = [record.fused[rule][loop] for record in records.values()]
                is_own = all(one is record.loops[loop] for one, record in zip(found, records.values(), strict=True))
                loops[str(loop + 1)] = summary(precisions if is_own else self._precisions(records, found))
            metrics.setdefault("score_fusions", {})[rule] = loops

    def _recalls(self, batch: Batch, candidates: Sequence[ScoredRois]) -> list[ImageRecall | None]:
        """Objects of each image that every stage reaches."""
        if not candidates:
            return [None] * len(batch)
        stages = [ranked_boxes(stage, batch.sizes, batch.original_sizes, self.recall_at[-1]) for stage in candidates]
        nothing = np.zeros((0, 4))
        return [
            image_recall([stage[number] for stage in stages], self._objects.get(image_id, nothing), self.recall_at)
            for number, image_id in enumerate(batch.image_ids)
        ]

    def _precisions(self, records: dict[int, ImageRecord], found: Sequence[LoopRecord]) -> Precisions:
        """Box and mask precision of detections, one entry per record."""
        return self._precision(records, found, "bbox"), self._precision(records, found, "segm")

    def _precision(self, records: dict[int, ImageRecord], found: Sequence[LoopRecord], iou_type: IouType) -> Precision:
        """Some categories at a time, and of a large one some images."""
        by_image = dict(zip(records, found, strict=True))
        precisions = []
        for labels, image_ids in self._portions(by_image):
            chosen = {label: self.category_ids[label] for label in labels}
            protocol = Protocol(image_ids, [*chosen.values()], self.max_detections, self.backend, self.verify_backend)

            def find(image_ids: Sequence[int], chosen: dict[int, Id] = chosen) -> Iterator[Instance]:
                for one in image_ids:
                    size = records[one].size
                    yield from instances_of(one, by_image[one], size, chosen, iou_type, self.area_from)

            precisions.append(protocol.precision(self._truth, find, iou_type))
        return Precision.joined(precisions)

    def _portions(self, found: Mapping[int, LoopRecord]) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Labels in the order of their categories, and images, of so many detections; of one large label in groups."""
        counts = np.zeros(len(self.category_ids), dtype=np.int64)
        for one in found.values():
            counts += np.bincount(one.labels, minlength=len(counts))
        labels: list[int] = []
        for label in sorted(range(len(counts)), key=self.category_ids.__getitem__):
            if labels and counts[[*labels, label]].sum() > DETECTIONS_AT_A_TIME:
                yield labels, _grouped(found, labels[0]) if len(labels) == 1 else [[*found]]
                labels = []
            labels.append(label)
        yield labels, _grouped(found, labels[0]) if len(labels) == 1 else [[*found]]


def _grouped(found: Mapping[int, LoopRecord], label: int) -> list[list[int]]:
    """Images in groups that end where they have so many detections of a label."""
    before = np.cumsum([0, *(np.count_nonzero(one.labels == label) for one in found.values())])[:-1]
    groups = groupby(zip(before // DETECTIONS_AT_A_TIME, found, strict=True), key=itemgetter(0))
    return [[image_id for _, image_id in group] for _, group in groups] or [[]]


def summary(precisions: Precisions) -> dict[str, Stats]:
    """Figures of boxes and masks."""
    box, mask = precisions
    return {"box": box.summary(), "mask": mask.summary()}


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
