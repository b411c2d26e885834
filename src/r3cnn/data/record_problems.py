"""Everything that is wrong with a record of a COCO file: asked only about records that are known to be bad."""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import partial

from r3cnn.data.checks import (
    Record,
    check_area,
    check_crowd,
    checked_box,
    checked_file_name,
    checked_id,
    checked_side,
    given_box,
    reasons_of,
    shortened,
)
from r3cnn.data.segmentation import segmentation_problems
from r3cnn.structures import Size

REPEATED_IMAGE = "has the id of another image: one of its own is needed"


def row_of_image(record: Record, row_of: Mapping[int, int]) -> int:
    """Row of the image that an annotation belongs to.

    Args:
        record: The annotation.
        row_of: Row of each sound image by its id.

    Raises:
        ValueError: With the reason, for an image that is not there.
    """
    row = row_of.get(checked_id(record, "image_id"))
    if row is None:
        raise ValueError(f"belongs to image_id {record['image_id']}, which is not in the file (or is bad itself)")
    return row


def label_of(record: Record, labels: Mapping[int, int]) -> int:
    """Label of an annotation.

    Args:
        record: The annotation.
        labels: Label of each category id.

    Raises:
        ValueError: With the reason, for a category that is not there.
    """
    label = labels.get(checked_id(record, "category_id"))
    if label is None:
        known = shortened(sorted(labels))
        raise ValueError(f"has unknown category_id {record['category_id']}: one of the file's, {known}, is needed")
    return label


def image_problems(record: Record, taken: Container[int]) -> list[str]:
    """What is wrong with the fields of an image record, each one.

    Args:
        record: The image.
        taken: Ids that others have.
    """
    sides = [partial(checked_side, record, key) for key in ("height", "width")]
    return reasons_of([partial(_check_new_id, record, taken), partial(checked_file_name, record), *sides])


def _check_new_id(record: Record, taken: Container[int]) -> None:
    if checked_id(record) in taken:
        raise ValueError(REPEATED_IMAGE)


def annotation_problems(
    record: Record, row_of: Mapping[int, int], labels: Mapping[int, int], size: Size | None
) -> list[str]:
    """What is wrong with the fields of an annotation record, each one, and each of its polygons.

    Args:
        record: The annotation.
        row_of: Row of each sound image by its id.
        labels: Label of each category id.
        size: (height, width) of its image in pixels; None if it is not known, and nothing is held against it then.
    """
    box = partial(given_box, record) if size is None else partial(checked_box, record, size)
    found = reasons_of(
        [
            partial(checked_id, record),
            partial(row_of_image, record, row_of),
            partial(label_of, record, labels),
            partial(check_area, record),
            partial(check_crowd, record),
            box,
        ]
    )
    return [*found, *segmentation_problems(record.get("segmentation"), size)]
