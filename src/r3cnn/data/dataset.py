"""A COCO-format data set that hands out images with their ground truth."""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.utils.data import Dataset

from r3cnn.batch import Example
from r3cnn.data.annotations import Annotations
from r3cnn.data.augmentation import Augmentation
from r3cnn.data.loading import IN_8_BITS, LEAVING_OUT, ImageError, ImageReader
from r3cnn.data.samplers import Draw
from r3cnn.data.transforms import transform_objects
from r3cnn.structures import Id, Size

log = logging.getLogger(__name__)
Crowd = Literal["drop", "ignore"]
PAPER = Augmentation()
"""Every image at the same bounds, in its own colours."""


class CocoDataset(Dataset[Example]):
    """Some images of an annotation file; asked with a ``Draw``, because augmentation depends on the epoch.

    Args:
        annotations: The packed annotation file.
        folder: Folder of the image files.
        indices: (I,) positions in ``annotations`` of the images to use.
        image_size: Upper bounds of the (shorter, longer) side in pixels.
        flip: Probability in [0, 1] that an image is mirrored left to right.
        augmentation: What else happens to an image.
        seed: Seed of the run, >= 0; with epoch and image id it decides on flip and augmentation.
        crowd: ``drop``: crowds count as background, as in the authors' code; ``ignore``: their boxes are handed out,
            so that boxes inside them are neither positive nor negative.
        reader: How the image files become pixels.
        skips_unreadable: Whether the next image stands in for one that cannot be read; otherwise that is an error.
    """

    def __init__(
        self,
        annotations: Annotations,
        folder: Path,
        *,
        indices: npt.NDArray[np.int64],
        image_size: tuple[int, int],
        flip: float = 0.0,
        augmentation: Augmentation = PAPER,
        seed: int = 0,
        crowd: Crowd = "drop",
        reader: ImageReader = IN_8_BITS,
        skips_unreadable: bool = False,
    ) -> None:
        self.annotations = annotations
        self._folder = folder
        self._indices = indices
        self._image_size = image_size
        self._flip = flip
        self._augmentation = augmentation
        self._seed = seed
        self._crowd = crowd
        self._reader = reader
        self._skips_unreadable = skips_unreadable
        self._unreadable: set[int] = set()

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(I, 2) sizes (height, width) of the image files in pixels, from the annotation file."""
        return self.annotations.sizes[self._indices]

    @property
    def image_ids(self) -> tuple[int, ...]:
        """Ids of the I images."""
        return tuple(self.annotations.image_ids[self._indices].tolist())

    def file_id(self, image_id: int) -> Id:
        """The annotation file's id of an image."""
        return self.annotations.file_ids.get(image_id, image_id)

    @property
    def digest(self) -> str:
        """Names the images by their ids and sizes, which with the seed decide on the order of training."""
        content = (self.annotations.image_ids[self._indices], self.sizes)
        return hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in content)).hexdigest()[:12]

    @property
    def num_objects(self) -> int:
        """Objects in the I images; crowds are none."""
        return int(np.diff(self.annotations.starts)[self._indices].sum())

    def __getitem__(self, draw: Draw) -> Example:
        """The image at ``draw.item`` as augmented in ``draw.epoch``.

        Raises:
            ImageError: For an image that cannot be read or is not of the annotated size.
        """
        index, pixels = self._readable(draw.item)
        image_id, original_size = int(self.annotations.image_ids[index]), self.annotations.size(index)
        key = (self._seed, draw.epoch, image_id % 2**64)
        frame = self._augmentation.frame(original_size, self._image_size, key)
        image = self._augmentation.image(pixels, frame, key)
        flip = self._is_flipped(key)
        objects = self.annotations.objects(index)
        if self._crowd == "drop":
            objects = replace(objects, crowds=objects.crowds[:0])
        target = transform_objects(objects, original_size, frame.size, flip=flip, window=frame.window)
        return Example(image.flip(-1) if flip else image, target, image_id, original_size)

    def without_unreadable(self) -> CocoDataset:
        """Those of the images that can be read, which is found out by reading them all.

        Raises:
            ImageError: If none of them can.
        """
        with ThreadPoolExecutor() as pool:
            problems = list(pool.map(self._problem, self._indices.tolist()))
        found = [one for one in problems if one]
        if len(found) == len(self):
            raise ImageError(found[0])
        if found:
            log.warning("left out %d of %d images that cannot be read, first: %s", len(found), len(self), found[0])
        kept = copy(self)
        kept._indices = self._indices[[not one for one in problems]]
        return kept

    def _problem(self, index: int) -> str:
        try:
            self._pixels(index)
        except ImageError as error:
            return str(error)
        return ""

    def _readable(self, item: int) -> tuple[int, Tensor]:
        """Position and pixels of image ``item``, or of the next one where that cannot be read and it may be skipped."""
        for step in range(len(self)):
            index = int(self._indices[(item + step) % len(self)])
            try:
                return index, self._pixels(index)
            except ImageError as error:
                if not self._skips_unreadable or step + 1 == len(self):
                    raise
                if index not in self._unreadable:
                    log.warning("skipping unreadable image, using the next one: %s", error)
                self._unreadable.add(index)
        raise IndexError(item)

    def _pixels(self, index: int) -> Tensor:
        path = self._folder / str(self.annotations.file_names[index])
        try:
            pixels = self._reader(path)
            _check_size(path, (pixels.shape[-2], pixels.shape[-1]), self.annotations.size(index))
        except ImageError as error:
            hint = "" if self._skips_unreadable else f"; {LEAVING_OUT}"
            raise ImageError(f"{error}{hint}") from error
        return pixels

    def _is_flipped(self, key: tuple[int, int, int]) -> bool:
        return bool(np.random.default_rng(key).random() < self._flip)


def _check_size(path: Path, found: Size, annotated: Size) -> None:
    if found != annotated:
        raise ImageError(
            f"{path}: is {found[0]} px high and {found[1]} px wide (after EXIF rotation), "
            f"its annotation file says {annotated[0]} and {annotated[1]}"
        )
