"""Everything that is wrong with a data set, and what looks wrong; not only the first of it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from r3cnn.data.annotations import Annotations, classes_of, read_index
from r3cnn.data.checks import AnnotationError, checked_file_name, checked_size, named
from r3cnn.data.coco_file import entries_of, parsed, read_bytes
from r3cnn.data.loading import ImageError, is_turned, read_image
from r3cnn.data.segmentation import decode
from r3cnn.data.split import Split
from r3cnn.structures import Size

FILES_PER_TASK = 16
MASK_TOLERANCE, MASK_TOLERANCE_SHARE = 3.0, 0.1
"""Pixels, and part of its longer side, by which a box may miss its mask; annotation tools round and simplify."""


@dataclass(frozen=True)
class Inspection:
    """What was found in one annotation file and its images.

    Attributes:
        file: The annotation file.
        problems: One sentence for each thing that is wrong, the record or file first: what a run refuses or leaves out.
        notes: One sentence for each thing that looks wrong, but can be trained on.
        annotations: The sound records; None if the file cannot be read, or is of other classes.
        digests: Digest of the content of each image file that could be read, by its name.
    """

    file: Path
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    annotations: Annotations | None
    digests: dict[str, str]


def inspect(split: Split, classes: Sequence[str], *, may_lack_classes: bool, workers: int) -> Inspection:
    """Checks every record and decodes every image, those of bad records as well.

    A file of other classes is that problem, and is looked through with its own classes.

    Args:
        split: Annotation file and image folder.
        classes: Names of the K classes in label order.
        may_lack_classes: Whether the file's categories may be a part of ``classes``.
        workers: Processes that decode images; 0 decodes in this one.
    """
    try:
        annotations, found = read_index(split.annotation_file, classes, may_lack_classes=may_lack_classes)
    except AnnotationError as error:
        return _inspect_with_own_classes(split, classes, error, workers)
    files = [*_sound_images(annotations), *_images_of_bad_records(annotations)]
    looks = _look_at_all([(split.image_folder / file.name, file.size) for file in files], workers)
    problems, digests, turned = list(found.found), {}, []
    for file, look in zip(files, looks, strict=True):
        if look.problem:
            problems.append(f"{file.label} ({file.name}) {look.problem}")
        else:
            digests[file.name] = look.digest
            turned += [file.name] if look.is_turned else []
    names = [file.name for file in files]
    notes = [*_repeated_files(names, digests), *_unnamed_files(split.image_folder, names)]
    notes += [
        *_turned_files(turned),
        *_suspicious_objects(annotations),
        *_classes_without_objects(annotations, classes),
    ]
    return Inspection(split.annotation_file, tuple(dict.fromkeys(problems)), tuple(notes), annotations, digests)


def _inspect_with_own_classes(split: Split, classes: Sequence[str], error: AnnotationError, workers: int) -> Inspection:
    nothing_else = Inspection(split.annotation_file, (str(error),), (), None, {})
    try:
        own = classes_of(split.annotation_file)[0]
    except AnnotationError:
        return nothing_else
    if set(own) == set(classes):  # then it was something else
        return nothing_else
    found = inspect(split, own, may_lack_classes=False, workers=workers)
    return replace(found, problems=tuple(dict.fromkeys((str(error), *found.problems))), annotations=None)


@dataclass(frozen=True)
class _ImageFile:
    """What a record says of an image file.

    Attributes:
        label: What the record is called in messages.
        name: Path below the image folder.
        size: (height, width) in pixels; None if the record has none that is sound.
    """

    label: str
    name: str
    size: Size | None


def _sound_images(annotations: Annotations) -> Iterator[_ImageFile]:
    rows = zip(annotations.image_ids.tolist(), annotations.file_names.tolist(), strict=True)
    for index, (image_id, name) in enumerate(rows):
        yield _ImageFile(named("image", image_id), name, annotations.size(index))


def _images_of_bad_records(annotations: Annotations) -> Iterator[_ImageFile]:
    """Files that rejected image records name, where the name itself is sound."""
    if not annotations.rejected.images:
        return
    entries = entries_of(annotations.file, read_bytes(annotations.file)).images
    for position in annotations.rejected.images:
        record = parsed(annotations.file, entries[position])
        try:
            name = checked_file_name(record)
        except ValueError:
            continue
        try:
            size = checked_size(record)
        except ValueError:
            size = None
        yield _ImageFile(named("image", record.get("id")), name, size)


def shared_images(one: Inspection, other: Inspection) -> Iterator[str]:
    """Notes about images of the first data set that the second one has as well, by their content."""
    names = {digest: name for name, digest in other.digests.items()}
    for name, digest in one.digests.items():
        if digest in names:
            yield f"image {name} is {names[digest]} of {other.file.name}: what is learnt from must not be evaluated on"


@dataclass(frozen=True)
class _Look:
    """What one image file turned out to be: a problem, or a digest of its content and whether EXIF turns it."""

    problem: str
    digest: str = ""
    is_turned: bool = False


def _look_at_all(files: Sequence[tuple[Path, Size | None]], workers: int) -> Iterator[_Look]:
    if workers == 0:
        yield from map(_look, files)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_look, files, chunksize=FILES_PER_TASK)


def _look(file: tuple[Path, Size | None]) -> _Look:
    path, size = file
    if not path.is_file():
        return _Look(f"is not in {path.parent}")
    try:
        height, width = read_image(path).shape[-2:]
    except ImageError as error:
        return _Look(str(error).removeprefix(f"{path}: "))
    if size is not None and (height, width) != size:
        return _Look(f"is {height} px high and {width} px wide after EXIF rotation, annotated are {list(size)}")
    return _Look("", hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest(), is_turned(path))


def _repeated_files(names: Sequence[str], digests: dict[str, str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"image file {name} is named by {count} image records"
    same: dict[str, list[str]] = defaultdict(list)
    for name, digest in digests.items():
        same[digest].append(name)
    for copies in same.values():
        if len(copies) > 1:
            yield f"image files {', '.join(copies)} have the same content"


def _turned_files(names: Sequence[str]) -> Iterator[str]:
    """A turned square has the size of the picture that was not turned, so its size does not tell what was annotated."""
    if names:
        yield (
            f"{len(names)} image files are turned or mirrored by their EXIF tag, as are the images that the network "
            f"sees: their objects have to be annotated that way; first: {min(names)}"
        )


def _unnamed_files(folder: Path, names: Iterable[str]) -> Iterator[str]:
    wanted = {(folder / name).suffix.lower() for name in names}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() in wanted}
    unnamed = there - set(names)
    if unnamed:
        yield f"{len(unnamed)} image files in {folder} are in no image record, first: {min(unnamed)}"


def _suspicious_objects(annotations: Annotations) -> Iterator[str]:
    """Objects that are there twice, without a pixel, or whose box is not that of their mask."""
    for index, image_id in enumerate(annotations.image_ids.tolist()):
        objects, size = annotations.objects(index), annotations.size(index)
        seen: set[tuple[object, ...]] = set()
        for box, label, segment in zip(objects.boxes.tolist(), objects.labels.tolist(), objects.segments, strict=True):
            where = f"image {image_id} has an object at {[round(side, 1) for side in box]} (x1, y1, x2, y2)"
            if (*box, label) in seen:
                yield f"{where} twice"
            seen.add((*box, label))
            crop = decode(segment, size)
            if crop is None:
                yield f"{where} whose mask has no pixel"
                continue
            mask = np.array([crop.x, crop.rows[0], crop.x + len(crop.columns), crop.rows[1]])
            longer = max(box[2] - box[0], box[3] - box[1])
            if np.abs(mask - box).max() > max(MASK_TOLERANCE, MASK_TOLERANCE_SHARE * longer):
                yield f"{where} whose mask reaches over {mask.tolist()}"


def _classes_without_objects(annotations: Annotations, classes: Sequence[str]) -> Iterator[str]:
    counts = np.bincount(annotations.labels, minlength=len(classes))
    empty = [name for name, count in zip(classes, counts.tolist(), strict=True) if not count]
    if empty:
        yield f"{len(empty)} of {len(classes)} classes have no object: {', '.join(empty)}"
