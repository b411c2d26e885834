"""The outer shape of a COCO file: its three lists, and its categories."""

from __future__ import annotations

import json
from pathlib import Path

from r3cnn.data.checks import AnnotationError, Record, checked_id

Content = dict[str, list[Record]]


def load_content(file: Path) -> Content:
    """The lists ``images``, ``annotations`` and ``categories``, of records that are not checked yet.

    Raises:
        AnnotationError: For a file that is no COCO file.
    """
    try:
        with file.open("rb") as stream:
            content = json.load(stream)
    except FileNotFoundError:
        raise AnnotationError(f"{file}: there is no such annotation file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{file}: is no JSON file: {error}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise AnnotationError(f"{file}: has no list {key!r}: a COCO file has images, annotations and categories")
        if not all(isinstance(record, dict) for record in content[key]):
            raise AnnotationError(f"{file}: {key} holds an entry that is no object")
    return content


def categories_of(file: Path, content: Content) -> dict[str, int]:
    """Id of each category by its name, in the order of the ids.

    Raises:
        AnnotationError: For categories without a unique name and id, or none at all.
    """
    found: dict[int, str] = {}
    for record in content["categories"]:
        try:
            category = checked_id(record)
        except ValueError as error:
            raise AnnotationError(f"{file}: a category {error}") from error
        name = record.get("name")
        if not isinstance(name, str) or category in found or name in found.values():
            raise AnnotationError(f"{file}: category {category} ({name!r}): a unique name and a unique id are needed")
        found[category] = name
    if not found:
        raise AnnotationError(f"{file}: has no category")
    return {found[category]: category for category in sorted(found)}
