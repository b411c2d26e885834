"""Which images of which annotation file a data set uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from r3cnn.data.annotations import Annotations
from r3cnn.ranges import check_range
from r3cnn.structures import Id


@dataclass(frozen=True)
class Split:
    """A folder of images, a COCO file, and the part of them that is used.

    Attributes:
        images: Folder of the image files, absolute or below the root of the data set.
        annotations: COCO JSON file, likewise.
        keep_empty: Whether images without an object (crowds do not count) are used; the paper trains without them.
        min_side: Images whose shorter side is below this, in pixels, are left out.
        limit: Use only the first so many of these images.
        image_ids: Use only these images, e.g. to overfit a few.
    """

    images: str | Path
    annotations: str | Path
    keep_empty: bool = True
    min_side: int = 1
    limit: int | None = None
    image_ids: Sequence[Id] | None = None

    def __post_init__(self) -> None:
        check_range("[0, inf)", min_side=self.min_side)
        check_range("[1, inf)", limit=self.limit)
        if self.image_ids is not None and not self.image_ids:
            raise ValueError("image_ids is empty: ids of images are needed, or null for all")

    @property
    def image_folder(self) -> Path:
        """Folder of the image files."""
        return Path(self.images)

    @property
    def annotation_file(self) -> Path:
        """COCO JSON file."""
        return Path(self.annotations)

    def below(self, root: str | Path) -> Split:
        """The same split with relative paths taken from ``root``; ``~`` is the home folder."""
        folder = Path(root).expanduser()
        images, annotations = Path(self.images).expanduser(), Path(self.annotations).expanduser()
        return replace(self, images=folder / images, annotations=folder / annotations)

    def select(self, annotations: Annotations) -> npt.NDArray[np.int64]:
        """Positions in ``annotations`` of the images to use, in the file's order.

        Raises:
            ValueError: If there is no such image, or an id of ``image_ids`` is not in the file.
        """
        is_used = annotations.sizes.min(axis=1, initial=np.iinfo(np.int64).max) >= self.min_side
        if not self.keep_empty:
            is_used &= np.diff(annotations.starts) > 0
        if self.image_ids is not None:
            ids = [annotations.file_ids.get(one, one) for one in annotations.image_ids.tolist()]
            chosen = set(self.image_ids)
            missing = sorted(chosen.difference(ids), key=str)
            if missing:
                raise ValueError(f"image_ids holds {missing}, which are not in {annotations.file}")
            is_used &= np.array([one in chosen for one in ids], dtype=np.bool_)
        indices = np.flatnonzero(is_used)[: self.limit]
        if not len(indices):
            raise ValueError(
                f"{annotations.file}: none of its {len(annotations)} images is left to use with keep_empty="
                f"{self.keep_empty}, min_side={self.min_side}, limit={self.limit}; the whole file: "
                f"{annotations.summary}"
            )
        return indices
