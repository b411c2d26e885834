"""Validation images with what a network finds in them, for pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch

from r3cnn.data.datamodule import CocoDataModule
from r3cnn.data.dataset import Example
from r3cnn.data.loading import ImageError, collate
from r3cnn.data.samplers import Draw
from r3cnn.structures import Detections
from r3cnn.training.module import EvaluationModule

log = logging.getLogger(__name__)


def examples_with_loops(
    module: EvaluationModule, data: CocoDataModule, count: int
) -> Iterator[tuple[Example, list[Detections]]]:
    """Images spread over the validation set, with the detections after each loop, on the host.

    They are those of the evaluation: with test-time augmentation, what all views together found.

    Args:
        module: What looks at them.
        data: Whose validation set it is.
        count: Number of images; fewer if there are no more.
    """
    if data.val is None:
        return
    images = data.val_set
    count = min(count, len(images))
    module.eval()
    for index in [position * len(images) // count for position in range(count)]:
        try:
            example = images[Draw(0, index)]
        except ImageError as error:  # it may have been readable when it was evaluated
            log.warning("skipping picture: %s", error)
            continue
        batch = collate([example]).to(module.device)
        with torch.inference_mode():
            shown = module.model.inspect(module.normalized(batch), batch.sizes, module.options.views)
        yield example, [loop[0].to("cpu") for loop in shown.detections]
