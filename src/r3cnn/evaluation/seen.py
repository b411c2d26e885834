"""Which images were evaluated, and whether they are those that were handed out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

Record = TypeVar("Record")
MOST_NAMED = 10


class Seen(Generic[Record]):
    """What one rank found, by image id.

    Args:
        handed_out: Ids of the images that the rank was given; None if not known.
    """

    def __init__(self, handed_out: tuple[int, ...] | None = None) -> None:
        self.handed_out = handed_out
        self.records: dict[int, Record] = {}
        self.repeated: list[int] = []

    def add(self, image_id: int, record: Record) -> None:
        """Adds an image; one that came twice is no error before all ranks come together, or the others would hang."""
        if image_id in self.records:
            self.repeated.append(image_id)
        self.records[image_id] = record

    def parts(self, size: int) -> Iterator[Seen[Record]]:
        """The same in parts of at most ``size`` images, at least one; what has been taken is no longer here."""
        part: Seen[Record] = Seen(self.handed_out)
        part.repeated = self.repeated
        while True:
            part.records = {image_id: self.records.pop(image_id) for image_id in [*islice(self.records, size)]}
            yield part
            if not self.records:
                return
            part = Seen(None if self.handed_out is None else ())


def merge(parts: Sequence[Seen[Record]]) -> dict[int, Record]:
    """Records of all ranks, ascending by image id.

    Raises:
        ValueError: If an image came twice, is missing, or was not handed out.
    """
    seen = Counter(image_id for part in parts for image_id in (*part.records, *part.repeated))
    _refuse("were evaluated more than once", (image_id for image_id, times in seen.items() if times > 1))
    if all(part.handed_out is not None for part in parts):
        handed_out = Counter(image_id for part in parts for image_id in part.handed_out or ())
        _refuse("were handed out more than once", (image_id for image_id, times in handed_out.items() if times > 1))
        _refuse("were handed out and not evaluated", handed_out.keys() - seen.keys())
        _refuse("were evaluated and not handed out", seen.keys() - handed_out.keys())
    merged = {image_id: record for part in parts for image_id, record in part.records.items()}
    return {image_id: merged[image_id] for image_id in sorted(merged)}


def _refuse(what: str, image_ids: Iterable[int]) -> None:
    ids = sorted(image_ids)
    if ids:
        more = ", …" if len(ids) > MOST_NAMED else ""
        raise ValueError(f"{len(ids)} images {what}: ids {', '.join(map(str, ids[:MOST_NAMED]))}{more}")
