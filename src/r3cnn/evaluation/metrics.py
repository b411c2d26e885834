"""What an evaluation gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from r3cnn.evaluation.metrics_format import FIGURES, Metrics, Stats
from r3cnn.evaluation.records import ImageRecord, ResultEntry, entries_of
from r3cnn.structures import Id


@dataclass(frozen=True)
class EvaluationResult:
    """What one evaluation gives.

    Attributes:
        metrics: Content of ``metrics.json``; equal on all ranks.
        records: What every loop found by image id, ascending; empty on ranks other than 0.
        category_ids: The annotation file's category id of each label.
        file_ids: The annotation file's id of an image where that is another.
    """

    metrics: Metrics
    records: Mapping[int, ImageRecord]
    category_ids: tuple[Id, ...]
    file_ids: Mapping[int, Id] = field(default_factory=dict)

    @property
    def image_ids(self) -> list[Id]:
        """The annotation file's ids of the images that were looked at."""
        return [self.file_ids.get(image_id, image_id) for image_id in self.records]

    @property
    def detections(self) -> list[ResultEntry]:
        """Entries of ``detections.json``, those of the last loop."""
        return [*self.entries(-1)]

    def entries(self, loop: int) -> Iterator[ResultEntry]:
        """Entries of the COCO results file of a loop, counted from 0, or from the last one with -1."""
        for image_id, record in zip(self.image_ids, self.records.values(), strict=True):
            yield from entries_of(image_id, record.loops[loop], record.size, self.category_ids)


def unvalidated(loops: int, category_ids: tuple[Id, ...]) -> EvaluationResult:
    """Of a run without validation: no image was looked at, and every figure is undefined.

    Args:
        loops: Evaluation loops of the network.
        category_ids: Id of each label.
    """
    nothing: dict[str, Stats] = {kind: dict.fromkeys(FIGURES) for kind in ("box", "mask")}
    by_loop = {str(loop): nothing for loop in range(1, loops + 1)}
    metrics: Metrics = {**nothing, "per_class": {}, "loops": by_loop, "images": {"seen": 0, "total": 0}}  # type: ignore[typeddict-item]
    return EvaluationResult(metrics, {}, category_ids)
