"""The outer shape of a COCO file: its three lists, and its categories."""

from __future__ import annotations

import gc
import json
import mmap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from r3cnn.data.checks import AnnotationError, Record, checked_id, shortened
from r3cnn.disk import open_regular
from r3cnn.names import Id, composed

T = TypeVar("T")
OTHER_FILES = {
    b"\x1f\x8b": "is compressed with gzip: unpack it",
    b"PK\x03\x04": "is a ZIP archive: unpack it",
    b"version https://git-lfs": "is a pointer of Git LFS to a file: fetch that with `git lfs pull`",
}
"""What is taken for an annotation file, by how it starts."""

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

    images: list[Entry]
    annotations: list[Entry]
    categories: Sequence[Record]

    def clear(self) -> None:
        """Drops the images and annotations, whose text is most of the memory."""
        self.images.clear()
        self.annotations.clear()


class _Outline(msgspec.Struct):
    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: list[dict[str, object]]


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


def read_text(file: Path) -> bytes:
    """The whole file as UTF-8 without a byte order mark, from any of the encodings that JSON is written in.

    Raises:
        AnnotationError: If it cannot be read, or is neither UTF-8 nor UTF-16 nor UTF-32.
    """
    try:
        with open_regular(file) as stream:
            content = stream.read()
    except FileNotFoundError:
        raise AnnotationError(f"{file}: there is no such annotation file") from None
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{file}: cannot be read: {error}") from error
    if not content:
        raise AnnotationError(f"{file}: is empty")
    for magic, kind in OTHER_FILES.items():
        if content.startswith(magic):
            raise AnnotationError(f"{file}: {kind}")
    encoding = json.detect_encoding(content)
    if encoding == "utf-8" and content.isascii():
        return content
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line, start = content.count(b"\n", 0, error.start) + 1, max(error.start - 20, 0)
        around = content[start : error.start + 20].decode("cp1252", errors="replace")
        raise AnnotationError(
            f"{file}: byte {error.start} (line {line}) is not valid {encoding.upper()}: "
            f"save the file as UTF-8; read as Windows-1252 it says {around!r}"
        ) from error
    return content if encoding == "utf-8" else text.encode("utf-8", errors="surrogatepass")


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
        return Entries([*content["images"]], [*content["annotations"]], content["categories"])
    return Entries([*lists.images], [*lists.annotations], lists.categories)


def categories_alone(file: Path) -> Entries | None:
    """The categories of a COCO file, without reading the rest into memory, which all processes of a job would do.

    None where the rest is needed: where its use decides between categories, or something is wrong.
    """
    try:
        with open_regular(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
            found = msgspec.json.decode(text, type=_Outline)
            are_lists = all(bytes(memoryview(one)[:1]) == b"[" for one in (found.images, found.annotations))
            entries = Entries([], [], found.categories)
            del found  # it points into the file
    except (msgspec.MsgspecError, ValueError, OSError, RecursionError):
        return None
    are_distinct = all(
        len({str(record.get(key)) for record in entries.categories}) == len(entries.categories)
        for key in ("id", "name")
    )
    return entries if are_lists and are_distinct and root_of(entries) is None else None


def parsed(file: Path, entry: Entry) -> Record:
    """A record with all its fields.

    Raises:
        AnnotationError: If the entry is no object, or no text.
    """
    try:
        record: object = json.loads(bytes(entry)) if isinstance(entry, msgspec.Raw) else entry
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{file}: is not valid JSON: {error}") from error
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
        raise AnnotationError(f"{file}: is not valid JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise AnnotationError(f"{file}: has no list {key!r}: a COCO file has images, annotations and categories")
        if not all(isinstance(record, dict) for record in content[key]):
            raise AnnotationError(f"{file}: {key} holds an entry that is no object")
    return content


class _CategoryId(msgspec.Struct, gc=False):
    category_id: int | float | str


_DECODER = msgspec.json.Decoder(list[_CategoryId])
CHUNK = 4096
"""Annotations whose categories are decoded at a time."""


def uses_of(file: Path, entries: Entries) -> Counter[object]:
    """How many annotations name each category, whatever else is wrong with them."""
    uses: Counter[object] = Counter()
    for start in range(0, len(entries.annotations), CHUNK):
        chunk = entries.annotations[start : start + CHUNK]
        found = decoded(chunk, _DECODER)
        if found is None:
            given = (parsed(file, entry).get("category_id") for entry in chunk)
            uses.update(one for one in given if isinstance(one, int | float | str))
        else:
            uses.update(one.category_id for one in found)
    return uses


def categories_of(file: Path, entries: Entries) -> dict[str, Id]:
    """Id of each category by its name, in the order of the ids; a name that is a number is text.

    Of categories with the same name or id, those that no annotation names do not count.

    Raises:
        AnnotationError: For categories without a unique name and id, or none at all.
    """
    listed = [_category(file, record) for record in entries.categories]
    if not listed:
        raise AnnotationError(f"{file}: has no category")
    if len({type(one) for one, _ in listed}) > 1:
        ids = ", ".join(repr(one) for one, _ in listed)
        raise AnnotationError(f"{file}: its category ids are numbers and text, {ids}: pycocotools needs one kind")
    found = dict(listed)
    if len(found) < len(set(listed)) or len(set(found.values())) < len(found):
        found = _without_unused(file, listed, uses_of(file, entries))
    return {found[category]: category for category in sorted(found)}


def _category(file: Path, record: Record) -> tuple[Id, str]:
    try:
        category = checked_id(record)
    except ValueError as error:
        raise AnnotationError(f"{file}: a category {error}") from error
    name = record.get("name")
    if isinstance(name, list | dict) or name == "":
        raise AnnotationError(f"{file}: category {category} has the name {shortened(name)}: text is needed")
    return category, composed(str(category if name is None else name))


def _without_unused(file: Path, listed: Sequence[tuple[Id, str]], uses: Mapping[object, int]) -> dict[Id, str]:
    """Those of ``listed`` that annotations name, and of the others those whose name and id nobody else has."""
    found: dict[Id, str] = {}
    for category, name in sorted(dict.fromkeys(listed), key=lambda one: not uses.get(one[0])):
        if category not in found and name not in found.values():
            found[category] = name
        elif uses.get(category):
            same = [(one, other) for one, other in listed if category == one or name == other]
            uses_of_each = ", ".join(f"{one!r} {other!r} ({uses.get(one, 0)} annotations)" for one, other in same)
            hint = "give each a name and an id of its own"
            raise AnnotationError(f"{file}: categories share a name or an id: {uses_of_each}; {hint}")
    return found


def root_of(entries: Entries) -> str | None:
    """Name of the class above all others that Roboflow's exports have, and no annotation names; None without one."""
    names = [
        (composed(str(record.get("name"))), composed(str(record.get("supercategory")))) for record in entries.categories
    ]
    above = {supercategory for _, supercategory in names}
    return next((name for name, supercategory in names if supercategory == "none" and name in above), None)
