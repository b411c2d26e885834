"""The outer shape of a COCO file: its three lists, and its categories."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from r3cnn.data.checks import AnnotationError, Record, checked_id

T = TypeVar("T")
Content = dict[str, list[Record]]
Entry = msgspec.Raw | Record
"""A record as its JSON text, of which nothing is known yet, or already parsed."""


@dataclass(frozen=True)
class Entries:
    """The lists of a COCO file, unchecked; the text of a record is a view into that of the file.

    Attributes:
        images: One entry per image.
        annotations: One entry per annotation.
        categories: Parsed records.
    """

    images: Sequence[Entry]
    annotations: Sequence[Entry]
    categories: Sequence[Record]


class _Lists(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[dict[str, object]]


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python looks for no reference cycles: JSON has none, and looking takes a fifth of the time that reading takes."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_bytes(file: Path) -> bytes:
    """The whole file.

    Raises:
        AnnotationError: If it cannot be read.
    """
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise AnnotationError(f"{file}: there is no such annotation file") from None
    except OSError as error:
        raise AnnotationError(f"{file}: cannot be read: {error}") from error


def entries_of(file: Path, text: bytes) -> Entries:
    """Splits the text of a COCO file into its records, without a Python object for everything that stands in them.

    What only Python's parser takes, such as NaN, is parsed with it, at ten times the time and memory.

    Args:
        file: Where the text is from, for errors.
        text: JSON.

    Raises:
        AnnotationError: If it is no COCO file.
    """
    try:
        lists = msgspec.json.decode(text, type=_Lists)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        content = _parse(file, text)
        return Entries(content["images"], content["annotations"], content["categories"])
    return Entries(lists.images, lists.annotations, lists.categories)


def parsed(file: Path, entry: Entry) -> Record:
    """A record with all its fields.

    Raises:
        AnnotationError: If the entry is no object, or no text.
    """
    try:
        record: object = json.loads(bytes(entry)) if isinstance(entry, msgspec.Raw) else entry
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{file}: is no JSON file: {error}") from error
    if not isinstance(record, dict):
        raise AnnotationError(f"{file}: holds an entry that is no object: {str(record)[:80]}")
    return record


def decoded(entries: Sequence[Entry], decoder: msgspec.json.Decoder[list[T]]) -> list[T] | None:
    """Entries as what ``decoder`` makes of them; None if one of them has not the fields that it needs."""
    texts = [entry for entry in entries if isinstance(entry, msgspec.Raw)]
    if len(texts) < len(entries):
        return None
    try:
        return decoder.decode(b"[" + b",".join(texts) + b"]")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _parse(file: Path, text: bytes) -> Content:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, no text, an integer of thousands of digits, too deep
        raise AnnotationError(f"{file}: is no JSON file: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise AnnotationError(f"{file}: has no list {key!r}: a COCO file has images, annotations and categories")
        if not all(isinstance(record, dict) for record in content[key]):
            raise AnnotationError(f"{file}: {key} holds an entry that is no object")
    return content


def categories_of(file: Path, categories: Sequence[Record]) -> dict[str, int]:
    """Id of each category by its name, in the order of the ids.

    Raises:
        AnnotationError: For categories without a unique name and id, or none at all.
    """
    found: dict[int, str] = {}
    names: set[str] = set()
    for record in categories:
        try:
            category = checked_id(record)
        except ValueError as error:
            raise AnnotationError(f"{file}: a category {error}") from error
        name = record.get("name")
        if not isinstance(name, str) or category in found or name in names:
            raise AnnotationError(f"{file}: category {category} ({name!r}): a unique name and a unique id are needed")
        found[category] = name
        names.add(name)
    if not found:
        raise AnnotationError(f"{file}: has no category")
    return {found[category]: category for category in sorted(found)}
