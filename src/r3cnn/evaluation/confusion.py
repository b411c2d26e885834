"""Which class is taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from r3cnn.evaluation.error_matching import NOTHING, IntArray, Overlaps, match_image


def confusion_matrix(
    images: Mapping[int, Overlaps], category_ids: Sequence[int], foreground_iou: float, *, score_threshold: float
) -> IntArray:
    """Counts pairs of object and detection, whatever their classes; best score first, best free overlap.

    Args:
        images: Overlaps by image.
        category_ids: K ids.
        foreground_iou: IoU from which on a detection and an object are a pair.
        score_threshold: Detections with a lower score are left out.

    Returns:
        (K + 1, K + 1) int64: rows are the classes of the objects, columns those of the detections; the last row holds
        detections without an object (less those in crowds of their class), the last column objects without detection.
    """
    nothing = len(category_ids)
    place = {key: number for number, key in enumerate(category_ids)}
    matrix = np.zeros((nothing + 1, nothing + 1), dtype=np.int64)
    for image in images.values():
        kept = image.scores >= score_threshold
        scored = Overlaps(
            image.scores[kept],
            np.zeros(int(kept.sum()), dtype=np.int64),
            np.zeros(len(image.objects), dtype=np.int64),
            image.iou[kept],
            image.crowded[kept],
        )
        matched = match_image(scored, foreground_iou)
        for category, target, crowded in zip(image.found[kept], matched, scored.crowded, strict=True):
            if target != NOTHING or crowded < foreground_iou:
                row = nothing if target == NOTHING else place[int(image.objects[target])]
                matrix[row, place[int(category)]] += 1
        for category in np.delete(image.objects, matched[matched != NOTHING]):
            matrix[place[int(category)], nothing] += 1
    return matrix
