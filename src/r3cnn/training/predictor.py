"""A trained network as a function from an image file to objects.

Three lines: ``from r3cnn import Predictor``, ``predictor = Predictor.from_checkpoint("best.ckpt")``,
``objects = predictor("photo.jpg")``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from r3cnn.batch import Batch, Example
from r3cnn.data.loading import MAX_MEGAPIXELS, ImageReader, collate
from r3cnn.data.transforms import resize_image, resized_size
from r3cnn.detector import RCNN
from r3cnn.evaluation.paste import to_original
from r3cnn.evaluation.records import ResultEntry, entries_of, record_loop
from r3cnn.inference_modes import InferenceModes, device_of
from r3cnn.ops.images import normalize_images
from r3cnn.ops.views import View
from r3cnn.schedule import eval_heads as heads_of_loops
from r3cnn.structures import Detections, InstanceMasks, Size, Target, canvas_of
from r3cnn.training.checkpoint import CheckpointInfo, restore_model


class FoundObject(ResultEntry):
    """A COCO results entry that can be read without the annotation file."""

    category_name: str
    file_name: str


class Predictor:
    """Finds objects in image files, one at a time.

    Args:
        model: Trained network.
        info: What its checkpoint says.
        device: ``cpu``, ``cuda`` …; ``auto`` takes a GPU if there is one.
        views: Ways to look at an image, whose outcomes are averaged (test-time augmentation).
        max_megapixels: Files with more pixels are refused before they are decoded; None accepts any.
    """

    def __init__(
        self,
        model: RCNN,
        info: CheckpointInfo,
        device: torch.device | str,
        views: Sequence[View] = (View(),),
        max_megapixels: float | None = MAX_MEGAPIXELS,
    ) -> None:
        if not views:
            raise ValueError("views is empty: at least one is needed")
        self.device = device_of(device)
        self.model = model.to(self.device).eval()
        self.info = info
        self.views = tuple(views)
        self.reader = ImageReader(info.preprocessing.image_range, max_megapixels)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        trusted_packages: Sequence[str] = (),
        views: Sequence[View] = (View(),),
        eval_loops: int | None = None,
        eval_heads: Sequence[int] | None = None,
        modes: InferenceModes | None = None,
        max_megapixels: float | None = MAX_MEGAPIXELS,
    ) -> Predictor:
        """Loads a checkpoint of `r3cnn train`.

        Args:
            path: The checkpoint.
            device: ``cpu``, ``cuda`` …; ``auto`` takes a GPU if there is one.
            trusted_packages: Packages of your own that the network may be built from.
            views: Ways to look at an image, such as ``views_of([1.0], flip=True)``; their outcomes are averaged.
            eval_loops: How many loops; None for as many as trained.
            eval_heads: Or which head each loop runs.
            modes: Early exit, precision, compilation; none of them without it.
            max_megapixels: Files with more pixels are refused before they are decoded; None accepts any.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is refused, see `restore_model`, there is no view, or the loops make no sense.
        """
        model, info = restore_model(Path(path), trusted_packages)
        model.set_eval_heads(heads_of_loops(eval_loops, eval_heads, model.schedule))
        (modes or InferenceModes()).apply(model)
        info.preprocessing.check_image_size(max_megapixels)
        return cls(model, info, device, views, max_megapixels)

    def __call__(self, image: str | Path, image_id: int = 0) -> list[FoundObject]:
        """Objects in one image file, best score first, in pixels of the file.

        Raises:
            ValueError: If the file cannot be read as an image.
        """
        detections, size = self.detect(image)
        return self.entries(detections[-1], size, Path(image).name, image_id)

    def detect(self, image: str | Path | Tensor) -> tuple[list[Detections], Size]:
        """Detections after each evaluation loop, with boxes in pixels of the image, and its size.

        Args:
            image: A file, or (3, H, W) uint8 RGB as `reader` gives it.

        Raises:
            ValueError: If the file cannot be read as an image.
        """
        batch = self._batch_of(image if isinstance(image, Tensor) else self.reader(Path(image)))
        preprocessing, size = self.info.preprocessing, batch.original_sizes[0]
        with torch.inference_mode():
            batch = batch.to(self.device)
            pixels = normalize_images(batch.images, batch.canvas, preprocessing.mean, preprocessing.std)
            found = [loop[0] for loop in self.model.inspect(pixels, batch.sizes, self.views).detections]
        return [replace(loop, boxes=to_original(loop.boxes, batch.sizes[0], size)) for loop in found], size

    def entries(self, found: Detections, size: Size, file_name: str, image_id: int) -> list[FoundObject]:
        """COCO results entries of detections in pixels of a file of ``size``."""
        names, ids = self.info.classes, self.info.category_ids
        entries = entries_of(image_id, record_loop(found, size, size), size, ids)
        labels = found.labels.tolist()
        return [
            {**entry, "category_name": names[label], "file_name": file_name}
            for entry, label in zip(entries, labels, strict=True)
        ]

    def _batch_of(self, image: Tensor) -> Batch:
        original_size = (image.shape[-2], image.shape[-1])
        pixels = resize_image(image, resized_size(original_size, self.info.preprocessing.image_size))
        canvas = canvas_of((pixels.shape[-2], pixels.shape[-1]))
        nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), InstanceMasks.empty(canvas))
        return collate([Example(pixels, nothing, 0, original_size)])
