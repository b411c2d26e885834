"""Sound annotations, one by one or in columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from r3cnn.data.checks import Box


@dataclass(frozen=True)
class Columns:
    """A sound annotations, one row each.

    Attributes:
        positions: (A,) int64, in the file's list.
        images: (A,) int64 rows of their images.
        boxes: (A, 4) float32 ``(x1, y1, x2, y2)`` in pixels, inside the image.
        labels: (A,) int64.
        is_crowd: (A,) bool.
        is_tiny: (A,) bool; too small to learn from.
    """

    positions: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    is_crowd: npt.NDArray[np.bool_]
    is_tiny: npt.NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        """Rows of all parts behind one another."""
        named = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in (cls.of([]), *parts)]) for name in named))

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Columns:
        """Columns of single rows."""
        return cls(
            np.array([row.position for row in rows], dtype=np.int64),
            np.array([row.image for row in rows], dtype=np.int64),
            np.array([row.box for row in rows], dtype=np.float32).reshape(-1, 4),
            np.array([row.label for row in rows], dtype=np.int64),
            np.array([row.is_crowd for row in rows], dtype=np.bool_),
            np.array([row.is_tiny for row in rows], dtype=np.bool_),
        )

    def rows(self, chosen: npt.NDArray[np.int64]) -> Columns:
        """The rows ``chosen``, in that order."""
        return Columns(*(getattr(self, field.name)[chosen] for field in fields(self)))


@dataclass(frozen=True)
class Row:
    """One sound annotation.

    Attributes:
        position: In the file's list.
        image: Row of its image.
        box: ``(x1, y1, x2, y2)`` in pixels, inside the image.
        label: In [0, K).
        is_crowd: Whether it is a crowd.
        is_tiny: Whether it is too small to learn from.
        segment: Compressed run lengths.
    """

    position: int
    image: int
    box: Box
    label: int
    is_crowd: bool
    is_tiny: bool
    segment: bytes
