"""A COCO-format data set that hands out images with their ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from r3cnn.batch import Example
from r3cnn.data.annotations import Annotations
from r3cnn.data.loading import ImageError, load_image
from r3cnn.data.samplers import Draw
from r3cnn.data.transforms import transform_objects
from r3cnn.structures import Size


class CocoDataset(Dataset[Example]):
    """Some images of an annotation file; asked with a ``Draw``, because augmentation depends on the epoch.

    Args:
        annotations: The packed annotation file.
        folder: Folder of the image files.
        indices: (I,) positions in ``annotations`` of the images to use.
        image_size: Upper bounds of the (shorter, longer) side in pixels.
        flip: Probability in [0, 1] that an image is mirrored left to right.
        seed: Seed of the run, >= 0; with epoch and image id it decides on the flip.
    """

    def __init__(
        self,
        annotations: Annotations,
        folder: Path,
        *,
        indices: npt.NDArray[np.int64],
        image_size: tuple[int, int],
        flip: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.annotations = annotations
        self._folder = folder
        self._indices = indices
        self._image_size = image_size
        self._flip = flip
        self._seed = seed

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

    def __getitem__(self, draw: Draw) -> Example:
        """The image at ``draw.item`` as augmented in ``draw.epoch``.

        Raises:
            ImageError: For an image that cannot be read or is not of the annotated size.
        """
        index = int(self._indices[draw.item])
        image_id = int(self.annotations.image_ids[index])
        path = self._folder / str(self.annotations.file_names[index])
        image, original_size = load_image(path, self._image_size)
        _check_size(path, original_size, self.annotations.size(index))
        size = (image.shape[-2], image.shape[-1])
        flip = self._is_flipped(draw.epoch, image_id)
        target = transform_objects(self.annotations.objects(index), original_size, size, flip=flip)
        return Example(image.flip(-1) if flip else image, target, image_id, original_size)

    def _is_flipped(self, epoch: int, image_id: int) -> bool:
        return bool(np.random.default_rng((self._seed, epoch, image_id % 2**64)).random() < self._flip)


def _check_size(path: Path, found: Size, annotated: Size) -> None:
    if found != annotated:
        raise ImageError(
            f"{path}: is {found[0]} px high and {found[1]} px wide (after EXIF rotation), "
            f"its annotation file says {annotated[0]} and {annotated[1]}"
        )
