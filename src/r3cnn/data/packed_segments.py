"""The segmentations of a whole annotation file in a few arrays; polygons stay polygons until they are asked for.

To rasterise the 860,000 polygons of COCO takes longer than to read them. A worker rasterises those of its image, in a
fraction of the time that its decoding takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from r3cnn.names import Size

UPSAMPLING = 5
"""COCO's rasteriser (``rleFrPoly`` in ``maskApi.c``) rounds coordinates to this part of a pixel, and uses nothing else
of them: so what is stored gives its masks, to the bit."""


@dataclass(frozen=True)
class PackedSegments:
    """P segmentations that are polygons, and after these R that are run lengths.

    Attributes:
        points: (N,) int16 or int32; corners ``x, y, x, y, …`` of all polygons, in fifths of a pixel.
        polygons: (Q + 1,) int64; polygon q has the points ``polygons[q]`` to ``polygons[q + 1]``.
        outlines: (P + 1,) int64; segmentation p has the polygons ``outlines[p]`` to ``outlines[p + 1]``.
        runs: (M,) uint8; compressed run lengths.
        run_starts: (R + 1,) int64; segmentation P + r has the bytes ``run_starts[r]`` to ``run_starts[r + 1]``.
    """

    points: npt.NDArray[np.signedinteger]
    polygons: npt.NDArray[np.int64]
    outlines: npt.NDArray[np.int64]
    runs: npt.NDArray[np.uint8]
    run_starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.outlines) + len(self.run_starts) - 2

    def encoded(self, row: int, size: Size) -> bytes:
        """Compressed run lengths of segmentation ``row`` in an image of ``size`` (height, width) pixels."""
        row_of_runs = row - (len(self.outlines) - 1)
        if row_of_runs >= 0:
            return self.runs[self.run_starts[row_of_runs] : self.run_starts[row_of_runs + 1]].tobytes()
        first, last = self.outlines[row], self.outlines[row + 1]
        cuts = self.polygons[first : last + 1]
        points = _coordinates(self.points[cuts[0] : cuts[-1]])
        parts = [points[a:b].tolist() for a, b in zip(cuts[:-1] - cuts[0], cuts[1:] - cuts[0], strict=True)]
        encoded = coco_mask.frPyObjects(parts, *size)
        return bytes((encoded[0] if len(encoded) == 1 else coco_mask.merge(encoded))["counts"])

    def with_runs(self, runs: Sequence[bytes]) -> PackedSegments:
        """The polygons of these, and ``runs`` instead of their run lengths."""
        blob = np.frombuffer(b"".join(runs), dtype=np.uint8)
        return PackedSegments(self.points, self.polygons, self.outlines, blob, _starts([len(run) for run in runs]))


def pack_polygons(chunks: Sequence[Outlines]) -> PackedSegments:
    """Puts outlines behind one another."""
    points = np.concatenate([chunk.points for chunk in chunks] or [np.zeros(0, dtype=np.int16)])
    lengths = np.concatenate([chunk.lengths for chunk in chunks] or [np.zeros(0, dtype=np.int64)])
    counts = np.concatenate([chunk.counts for chunk in chunks] or [np.zeros(0, dtype=np.int64)])
    return PackedSegments(points, _starts(lengths), _starts(counts), np.zeros(0, dtype=np.uint8), _starts([]))


@dataclass(frozen=True)
class Outlines:
    """Polygons of P objects.

    Attributes:
        points: (N,) int16 or int32 corners of all polygons in fifths of a pixel.
        lengths: (Q,) int64 numbers per polygon, twice its corners.
        counts: (P,) int64 polygons per object.
    """

    points: npt.NDArray[np.signedinteger]
    lengths: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Polygons:
    """Polygons of P objects as they stand in the file, not checked.

    Attributes:
        points: (N,) float64 numbers of all polygons behind one another.
        lengths: (Q,) int64 numbers per polygon.
        counts: (P,) int64 polygons per object.
    """

    points: npt.NDArray[np.float64]
    lengths: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, objects: Sequence[Sequence[Sequence[float]]]) -> Polygons:
        """Puts the polygons of each object behind one another."""
        polygons = list(chain.from_iterable(objects))
        lengths = np.fromiter(map(len, polygons), np.int64, len(polygons))
        counts = np.fromiter(map(len, objects), np.int64, len(objects))
        return cls(np.fromiter(chain.from_iterable(polygons), np.float64, int(lengths.sum())), lengths, counts)

    @property
    def owners(self) -> npt.NDArray[np.int64]:
        """(Q,) int64 object of each polygon."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def chosen(self, is_sound: npt.NDArray[np.bool_]) -> Outlines:
        """The objects that ``is_sound`` (P,) says, rounded as COCO's rasteriser does."""
        is_kept = is_sound[self.owners]
        points = self.points[np.repeat(is_kept, self.lengths)]
        fifths = (UPSAMPLING * points + 0.5).astype(np.int32)  # towards zero, like C's cast
        is_small = not len(fifths) or max(-int(fifths.min()), int(fifths.max())) <= np.iinfo(np.int16).max
        return Outlines(fifths.astype(np.int16) if is_small else fifths, self.lengths[is_kept], self.counts[is_sound])


def _starts(lengths: npt.NDArray[np.int64] | Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def _coordinates(fifths: npt.NDArray[np.signedinteger]) -> npt.NDArray[np.float64]:
    """Numbers that the rasteriser rounds to ``fifths``: it cuts off ``5 x + 0.5``, towards zero."""
    inwards = np.where(fifths < 0, -0.75, -0.25)
    return (fifths + inwards) / UPSAMPLING
