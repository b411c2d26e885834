"""What a validation looks at: which images, in which views, scored by which rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from r3cnn.data.dataset import CocoDataset
from r3cnn.data.samplers import EvalBatchSampler
from r3cnn.ops.views import View
from r3cnn.schedule import ScoreFusion


@dataclass(frozen=True)
class EvaluationOptions:
    """What is looked at beside the detections of every loop.

    Attributes:
        views: Ways to look at an image, whose outcomes are averaged (test-time augmentation).
        score_fusions: Rules of score fusion that are scored beside the network's own.
        save_loops: Whether the detections of earlier loops are kept as well as those of the last one.

    Raises:
        ValueError: For an unknown rule or no view.
    """

    views: tuple[View, ...] = (View(),)
    score_fusions: tuple[ScoreFusion, ...] = ()
    save_loops: bool = True

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError("views is empty: at least one is needed")
        unknown = sorted(set(self.score_fusions) - set(get_args(ScoreFusion)))
        if unknown:
            raise ValueError(f"score_fusions names {unknown[0]!r}: {get_args(ScoreFusion)} are known")


def handed_out(loader: object, num_batches: Sequence[float]) -> tuple[int, ...] | None:
    """Ids of the images in the first batches of a rank; none if they are another's; None for a foreign data set."""
    sampler, images = getattr(loader, "batch_sampler", None), getattr(loader, "dataset", None)
    if not isinstance(sampler, EvalBatchSampler) or not isinstance(images, CocoDataset):
        return None
    if sampler.is_stand_in:
        return ()
    draws = [draw for number, batch in enumerate(sampler) if number < num_batches[0] for draw in batch]
    ids = images.image_ids
    return tuple(ids[draw.item] for draw in draws)
