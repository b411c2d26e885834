"""COCO results files, read back."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pycocotools import mask as coco_mask

from r3cnn.data.checks import checked_id
from r3cnn.evaluation.ground_truth import GroundTruth, Instance, to_code
from r3cnn.evaluation.protocol import IouType
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
            found.append(_instance(entry, truth, own_ids[entry["image_id"]], iou_type))
        except KeyError as error:
            raise ValueError(f"{path}: entry {position} lacks {error}, or speaks of an unknown image") from error
        except Exception as error:  # whatever pycocotools makes of a mask
            raise ValueError(f"{path}: entry {position} is no detection: {error}") from error
    return found


def _instance(entry: dict[str, object], truth: GroundTruth, image_id: int, iou_type: IouType) -> Instance:
    score = entry["score"] if iou_type == "bbox" else entry.get("mask_score", entry["score"])
    instance: Instance = {
        "image_id": image_id,
        "category_id": checked_id(entry, "category_id"),
        "iscrowd": 0,
        "score": float(cast(float, score)),
    }
    code = to_code(entry["segmentation"], truth.images[image_id])
    if tuple(code["size"]) != tuple(truth.images[image_id]):
        raise ValueError(f"its mask is for {code['size']} pixels, the image has {[*truth.images[image_id]]}")
    box = entry.get("bbox") or coco_mask.toBbox(code).tolist()
    instance["bbox"] = [float(side) for side in cast(list[float], box)]
    if iou_type == "segm":
        instance["segmentation"] = code
        instance["area"] = float(coco_mask.area(code))
    else:
        instance["area"] = instance["bbox"][2] * instance["bbox"][3]
    return instance
