"""What was found in one image, compact: arrays and mask codes in pixels of the image file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from r3cnn.evaluation.ground_truth import Instance
from r3cnn.evaluation.paste import paste_and_encode, to_original
from r3cnn.evaluation.protocol import IouType
from r3cnn.evaluation.recall import ImageRecall
from r3cnn.evaluation.rle import EncodedMasks, Rle, TextStore
from r3cnn.schedule import ScoreFusion
from r3cnn.structures import Detections, Id, ScoredRois, Size

AreaFrom = Literal["mask", "box"]


class ResultEntry(TypedDict):
    """One entry of a COCO results file; ``mask_score`` only from a model with a mask-IoU head."""

    image_id: Id
    category_id: Id
    bbox: list[float]
    score: float
    segmentation: Rle
    mask_score: NotRequired[float]


@dataclass(frozen=True)
class LoopRecord:
    """D detections of one image after one loop, as small as they are exact.

    Attributes:
        corners: (D, 4) float32 ``(x1, y1, x2, y2)`` inside the image file, in its pixels.
        scores: (D,) float32 in [0, 1].
        labels: (D,) int32 in [0, K).
        masks: D encoded masks.
        mask_scores: (D,) float32 that rank the masks, or None without a mask-IoU head.
    """

    corners: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    masks: EncodedMasks
    mask_scores: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def boxes(self) -> NDArray[np.float64]:
        """(D, 4) ``(x, y, width, height)`` inside the image file, in its pixels."""
        boxes = self.corners.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes


@dataclass(frozen=True)
class ImageRecord:
    """What was found in one image file.

    Attributes:
        size: Size of the file in pixels.
        loops: What every loop found.
        fused: The same with other rules of score fusion.
        recall: Objects that proposals and loops reached, where that is wanted.
    """

    size: Size
    loops: tuple[LoopRecord, ...]
    fused: Mapping[ScoreFusion, tuple[LoopRecord, ...]] = field(default_factory=dict)
    recall: ImageRecall | None = None

    def move_masks_to(self, store: TextStore) -> None:
        """Lets the masks lie where the store has room for them."""
        for record in chain(self.loops, *self.fused.values()):
            record.masks.move_to(store)


def record_image(
    loops: Sequence[Detections],
    size: Size,
    original_size: Size,
    *,
    fused: Mapping[ScoreFusion, Sequence[Detections]] | None = None,
    recall: ImageRecall | None = None,
) -> ImageRecord:
    """Brings the detections of one image, one per loop, to the pixels of its file.

    Args:
        loops: Detections after each loop, in pixels of the network input.
        size: Size of the resized image in pixels.
        original_size: Size of the image file in pixels.
        fused: Detections after each loop with other rules of score fusion; those that are the loops' own, the very same
            objects, are coded once.
        recall: Kept as it is.
    """
    own = tuple(record_loop(found, size, original_size) for found in loops)
    known = {id(found): record for found, record in zip(loops, own, strict=True)}
    others = {
        rule: tuple(
            known[id(found)] if id(found) in known else record_loop(found, size, original_size)
            for found in found_by_rule
        )
        for rule, found_by_rule in (fused or {}).items()
    }
    return ImageRecord(original_size, own, others, recall)


def ranked_boxes(
    scored: ScoredRois, sizes: Sequence[Size], original_sizes: Sequence[Size], limit: int
) -> list[NDArray[np.float64]]:
    """Best boxes of each image, at most ``limit`` (N, 4) ``(x, y, width, height)`` in pixels of its file."""
    scores = torch.where(scored.rois.valid, scored.scores, -torch.inf)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :limit]
    boxes = scored.rois.boxes.gather(1, order[..., None].expand(-1, -1, 4))
    counts = scored.rois.valid.sum(dim=1).clamp(max=limit).tolist()
    found = []
    for count, image, size, original_size in zip(counts, boxes, sizes, original_sizes, strict=True):
        corners = to_original(image[:count].float(), size, original_size).double().cpu().numpy()
        corners[:, 2:] -= corners[:, :2]
        found.append(corners)
    return found


def record_loop(found: Detections, size: Size, original_size: Size) -> LoopRecord:
    """Pastes and encodes the masks, clips the boxes to the image file."""
    boxes = to_original(found.boxes.float(), size, original_size)
    masks = paste_and_encode(found.masks, boxes, original_size, threshold=found.mask_threshold)
    height, width = original_size
    corners = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    return LoopRecord(
        corners=corners.cpu().numpy(),
        scores=found.scores.float().cpu().numpy(),
        labels=found.labels.int().cpu().numpy(),
        masks=masks,
        mask_scores=found.mask_scores.float().cpu().numpy() if found.has_mask_scores else None,
    )


def entries_of(image_id: Id, record: LoopRecord, size: Size, category_ids: Sequence[Id]) -> list[ResultEntry]:
    """Entries of the COCO results file, full precision."""
    entries: list[ResultEntry] = []
    boxes, scores, counts = record.boxes.tolist(), record.scores.tolist(), record.masks.counts
    for number, label in enumerate(record.labels.tolist()):
        entry: ResultEntry = {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": boxes[number],
            "score": scores[number],
            "segmentation": {"size": [*size], "counts": counts[number].decode("ascii")},
        }
        if record.mask_scores is not None:
            entry["mask_score"] = float(record.mask_scores[number])
        entries.append(entry)
    return entries


def instances_of(
    image_id: int,
    record: LoopRecord,
    size: Size,
    category_ids: Mapping[int, Id],
    iou_type: IouType,
    area_from: AreaFrom,
) -> list[Instance]:
    """Detections of some categories, by their labels, in the form that COCO evaluators take, without ids.

    Boxes rank by ``score`` and count with their own area. Masks rank by ``mask_score`` where there is one, and count
    with the area of the mask or, as in older tool boxes, of the box.
    """
    is_mask = iou_type == "segm"
    labels = record.labels.tolist()
    rows = [row for row, label in enumerate(labels) if label in category_ids]
    ranking = record.scores if not is_mask or record.mask_scores is None else record.mask_scores
    boxes = record.boxes[rows]
    areas = record.masks.areas[rows] if is_mask and area_from == "mask" else boxes[:, 2] * boxes[:, 3]
    instances: list[Instance] = [
        {
            "image_id": image_id,
            "category_id": category_ids[labels[row]],
            "bbox": box,
            "area": area,
            "iscrowd": 0,
            "score": score,
        }
        for row, box, area, score in zip(rows, boxes.tolist(), areas.tolist(), ranking[rows].tolist(), strict=True)
    ]
    if is_mask:
        for instance, counts in zip(instances, record.masks.counts_of(rows), strict=True):
            instance["segmentation"] = {"size": [*size], "counts": counts}
    return instances
