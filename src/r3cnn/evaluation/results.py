"""COCO results files, read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pycocotools import mask as coco_mask

from r3cnn.data.checks import Record, checked_id, is_finite, shortened
from r3cnn.data.segmentation import encode
from r3cnn.evaluation.ground_truth import GroundTruth, Instance, MaskCode
from r3cnn.evaluation.protocol import IouType
from r3cnn.names import Id
from r3cnn.run_files import MOST_DETECTIONS_BYTES, read_json


def read_results(path: Path, truth: GroundTruth, iou_type: IouType) -> list[Instance]:
    """Detections of a file in the form that COCO evaluators take.

    Masks rank by ``mask_score`` where there is one, boxes by ``score``. Entries without a box get their mask's.

    Args:
        path: A list of ``image_id``, ``category_id``, ``score``, ``segmentation`` and ``bbox``.
        truth: The annotation file that it speaks of.
        iou_type: What is going to be compared.

    Raises:
        ValueError: If it is no such file.
    """
    content: object = read_json(path, object, MOST_DETECTIONS_BYTES)
    if not isinstance(content, list):
        raise ValueError(f"{path} is no COCO results file: a list is needed, got a {type(content).__name__}")
    found, own_ids = [], truth.own_ids
    for position, entry in enumerate(content):
        try:
            if not isinstance(entry, dict):
                raise ValueError(f"is {shortened(entry)}: a detection is needed")
            found.append(_instance(entry, truth, own_ids, iou_type))
        except ValueError as error:
            raise ValueError(f"{path}: entry {position} {error}") from error
    return found


def _instance(entry: Record, truth: GroundTruth, own_ids: Mapping[Id, int], iou_type: IouType) -> Instance:
    image_id = own_ids.get(given := checked_id(entry, "image_id"))
    if image_id is None:
        raise ValueError(f"has image_id {shortened(given)}, which is not in the annotation file")
    key = "mask_score" if iou_type == "segm" and "mask_score" in entry else "score"
    if not is_finite(score := entry.get(key)):
        raise ValueError(f"has {key} {shortened(score)}: a finite number is needed")
    counts, reasons = encode(entry.get("segmentation"), truth.images[image_id])
    if reasons:
        raise ValueError("; ".join(reasons))
    code: MaskCode = {"size": [*truth.images[image_id]], "counts": counts}
    box = coco_mask.toBbox(code).tolist() if entry.get("bbox") is None else entry["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)) or min(box[2:]) < 0:
        raise ValueError(f"has bbox {shortened(box)}: [x, y, width, height], finite and no side below 0, is needed")
    instance: Instance = {
        "image_id": image_id,
        "category_id": checked_id(entry, "category_id"),
        "iscrowd": 0,
        "score": float(score),
        "bbox": [float(side) for side in box],
    }
    if iou_type == "segm":
        instance["segmentation"] = code
        instance["area"] = float(coco_mask.area(code))
    else:
        instance["area"] = instance["bbox"][2] * instance["bbox"][3]
    return instance
