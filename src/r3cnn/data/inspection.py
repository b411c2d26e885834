"""Everything that is wrong with a data set, and what looks wrong; not only the first of it."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from r3cnn.data.annotations import Annotations, classes_of, read_index
from r3cnn.data.checks import AnnotationError, checked, checked_file_name, checked_side, named
from r3cnn.data.coco_file import entries_of, parsed, read_text
from r3cnn.data.image_files import ImageFolder
from r3cnn.data.loading import (
    IN_8_BITS,
    SIXTEEN_BITS,
    ImageError,
    ImageFacts,
    ImageReader,
    is_image_file,
    proposed_range,
)
from r3cnn.data.segmentation import decode
from r3cnn.data.split import Split
from r3cnn.disk import open_regular
from r3cnn.end_signals import end_silently
from r3cnn.structures import Size

FILES_PER_TASK, TASKS_AHEAD = 16, 4
"""Tasks that wait for each process: enough that none idles, few enough that memory does not grow with the images."""
SILENT = (
    "are turned or mirrored by their EXIF tag, as are the images that the network sees: their objects have to be "
    "annotated that way",
    "hold several pages or frames, of which the first is used",
    "have 16 bits per colour channel, of which the upper 8 are used",
)
"""What happens to files without a word."""

MASK_TOLERANCE, MASK_TOLERANCE_SHARE = 3.0, 0.1
"""Pixels, and part of its longer side, by which a box may miss its mask; annotation tools round and simplify."""


@dataclass(frozen=True)
class Inspection:
    """What was found in one annotation file and its images.

    Attributes:
        file: The annotation file.
        problems: One sentence for each bad record or file, its name first: what a run refuses or leaves out.
        notes: One sentence for each thing that looks wrong, but can be trained on.
        annotations: The sound records; None if the file cannot be read, or is of other classes.
        digests: Digest, 16 bytes, of the content of each image file that could be read, by its name.
    """

    file: Path
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    annotations: Annotations | None
    digests: dict[str, bytes]


def inspect(
    split: Split,
    classes: Sequence[str],
    *,
    is_training: bool,
    max_overhang: float,
    workers: int,
    reader: ImageReader = IN_8_BITS,
) -> Inspection:
    """Checks every record and decodes every image, those of bad records as well.

    A file of other classes is that problem, and is looked through with its own classes.

    Args:
        split: Annotation file and image folder.
        classes: Names of the K classes in label order.
        is_training: Whether it must have all ``classes``, and something to learn from.
        max_overhang: Share of a side of its image by which a box may reach over it.
        workers: Processes that decode images; 0 decodes in this one.
        reader: How images become pixels.
    """
    try:
        annotations, found = read_index(
            split.annotation_file, classes, may_lack_classes=not is_training, max_overhang=max_overhang
        )
    except AnnotationError as error:
        return _inspect_with_own_classes(split, classes, error, max_overhang, workers, reader)
    problems, digests, names, suspicious, pixels = list(found.found), {}, [], list[str](), _Pixels()
    if is_training and not len(annotations.labels):
        problems.append(f"{annotations.file}: nothing to learn from, {annotations.summary}")
    folder = ImageFolder(split.image_folder)
    files = (_on_disk(folder, file) for file in chain(_sound_images(annotations), _images_of_bad_records(annotations)))
    for file, look in _look_at_all(files, workers, _Looker(split.image_folder, reader, annotations)):
        suspicious += look.suspicious
        if file.problem:
            problems.append(f"{file.label}: {file.problem}")
            continue
        names.append(file.name)
        if look.problem:
            problems.append(f"{file.label} ({file.name}) {look.problem}")
        else:
            digests[file.name] = look.digest
        if look.facts is not None:
            pixels.add(file.name, look.facts)
    notes = [
        *found.notes,
        *(f"left out of training: {number} {reason}" for reason, number in annotations.left_out.items()),
        *_repeated_files(names, digests),
        *_unnamed_files(split.image_folder, names),
        *pixels.notes(reader),
        *suspicious,
        *_classes_without_objects(annotations, classes),
    ]
    return Inspection(split.annotation_file, tuple(problems), tuple(notes), annotations, digests)


def _inspect_with_own_classes(
    split: Split, classes: Sequence[str], error: AnnotationError, max_overhang: float, workers: int, reader: ImageReader
) -> Inspection:
    nothing_else = Inspection(split.annotation_file, (str(error),), (), None, {})
    try:
        own = classes_of(split.annotation_file)
    except AnnotationError:
        return nothing_else
    if set(own) == set(classes):  # then it was something else
        return nothing_else
    found = inspect(split, own, is_training=False, max_overhang=max_overhang, workers=workers, reader=reader)
    return replace(found, problems=(str(error), *found.problems), annotations=None)


@dataclass(frozen=True)
class _ImageFile:
    """What a record says of an image file.

    Attributes:
        label: What the record is called in messages.
        name: Path below the image folder.
        size: (height, width) in pixels; None if the record has none that is sound.
        index: Its place among the sound records; None for a bad one.
        problem: Why there is no such file; empty where there is.
    """

    label: str
    name: str
    size: Size | None
    index: int | None = None
    problem: str = ""


def _on_disk(folder: ImageFolder, file: _ImageFile) -> _ImageFile:
    try:
        return replace(file, name=folder.find(file.name))
    except ValueError as error:
        return replace(file, problem=str(error))


def _sound_images(annotations: Annotations) -> Iterator[_ImageFile]:
    rows = zip(annotations.image_ids.tolist(), annotations.file_names.tolist(), strict=True)
    for index, (image_id, name) in enumerate(rows):
        label = named("image", annotations.file_ids.get(image_id, image_id), index)
        yield _ImageFile(label, name, annotations.size(index), index)


def _images_of_bad_records(annotations: Annotations) -> Iterator[_ImageFile]:
    """Files that rejected image records name, where the name itself is sound."""
    if not annotations.rejected.images:
        return
    entries = entries_of(annotations.file, read_text(annotations.file)).images
    for position in annotations.rejected.images:
        record = parsed(annotations.file, entries[position])
        name = checked([], checked_file_name, record)
        height, width = (checked([], checked_side, record, key) for key in ("height", "width"))
        if name is not None:
            size = None if height is None or width is None else (height, width)
            yield _ImageFile(named("image", record.get("id"), position), name, size)


def shared_images(one: Inspection, other: Inspection) -> Iterator[str]:
    """Notes about images of the first data set that the second one has as well, by their content."""
    names = {digest: name for name, digest in other.digests.items()}
    for name, digest in one.digests.items():
        if digest in names:
            yield f"image {name} is {names[digest]} of {other.file.name}: what is learnt from must not be evaluated on"


@dataclass(frozen=True)
class _Look:
    """What one image file and its objects turned out to be.

    Attributes:
        problem: Why it cannot be used.
        digest: Of its content, where there is no problem.
        facts: Those of a file that was decoded.
        suspicious: One sentence for each object that looks wrong.
    """

    problem: str = ""
    digest: bytes = b""
    facts: ImageFacts | None = None
    suspicious: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Looker:
    """What looks at image files and their objects.

    Attributes:
        folder: Folder of the files.
        reader: How they become pixels.
        annotations: The sound records.
    """

    folder: Path
    reader: ImageReader
    annotations: Annotations

    def __call__(self, file: _ImageFile) -> _Look:
        look = _Look() if file.problem else self._look(self.folder / file.name, file.size)
        if file.index is None:
            return look
        return replace(look, suspicious=tuple(_suspicious_objects(self.annotations, file.index)))

    def _look(self, path: Path, size: Size | None) -> _Look:
        try:
            facts = self.reader.examine(path)
        except ImageError as error:
            return _Look(str(error).removeprefix(f"{path}: "))
        if facts.problem:
            return _Look(f"cannot be used: {facts.problem}", facts=facts)
        if size is not None and facts.size != size:
            height, width = facts.size
            return _Look(f"is {height} px high and {width} px wide after EXIF rotation, annotated are {list(size)}")
        with open_regular(path) as content:
            digest = hashlib.file_digest(content, partial(hashlib.blake2b, digest_size=16))
        return _Look("", digest.digest(), facts)


_looker: _Looker | None = None
"""That of a process of the pool, which shares the annotations instead of getting them with every task."""


def _begin(looker: _Looker) -> None:
    global _looker
    _looker = looker
    end_silently()


def _look_at_all(files: Iterable[_ImageFile], workers: int, looker: _Looker) -> Iterator[tuple[_ImageFile, _Look]]:
    if workers == 0:
        yield from ((file, looker(file)) for file in files)
        return
    remaining, running = iter(files), deque[Future[list[tuple[_ImageFile, _Look]]]]()
    with ProcessPoolExecutor(workers, initializer=_begin, initargs=(looker,)) as pool:
        try:
            while part := [*islice(remaining, FILES_PER_TASK)]:
                running.append(pool.submit(_look_at_part, part))
                if len(running) > TASKS_AHEAD * workers:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:  # the pool's thread itself cancels: if map() does while workers end, that thread fails (cpython 3.11)
            pool.shutdown(cancel_futures=True)


def _look_at_part(files: Sequence[_ImageFile]) -> list[tuple[_ImageFile, _Look]]:
    assert _looker is not None
    return [(file, _looker(file)) for file in files]


def _repeated_files(names: Sequence[str], digests: Mapping[str, bytes]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"image file {name} is named by {count} image records"
    same: dict[bytes, list[str]] = {digest: [] for digest, count in Counter(digests.values()).items() if count > 1}
    for name, digest in digests.items():
        if digest in same:
            same[digest].append(name)
    for copies in same.values():
        yield f"image files {', '.join(copies)} have the same content"


@dataclass
class _Pixels:
    """What happens to the pixels of files in silence: how many there are, and the first name.

    A turned square has the size of the picture that was not turned, so its size does not tell what was annotated.
    """

    seen: int = 0
    wide: int = 0
    values: tuple[float, float] = (math.inf, -math.inf)
    has_floats: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, facts: ImageFacts) -> None:
        """Counts a file that was decoded."""
        self.seen += 1
        for sentence, holds in zip(SILENT, (facts.is_turned, facts.has_pages, facts.is_cut), strict=True):
            if holds:
                self.counts[sentence] += 1
                self.first[sentence] = min(self.first.get(sentence, name), name)
        if facts.values is not None:
            self.wide += 1
            self.values = min(self.values[0], facts.values[0]), max(self.values[1], facts.values[1])
            self.has_floats |= facts.is_float

    def notes(self, reader: ImageReader) -> Iterator[str]:
        """One sentence for each kind."""
        for sentence in filter(self.first.get, SILENT):
            yield f"{self.counts[sentence]} image files {sentence}; first: {self.first[sentence]}"
        yield from self._grey_values(reader) if self.wide else ()

    def _grey_values(self, reader: ImageReader) -> Iterator[str]:
        """Which ``image_range`` fits the images of more than 8 bits, where another one is set."""
        least, largest = self.values
        low, high = proposed_range(self.values, is_float=self.has_floats)
        start, stop = reader.image_range or SIXTEEN_BITS
        levels = round(255 * min(1.0, (largest - least) / (stop - start))) + 1
        if least < start or largest > stop:
            effect = "values outside are " + ("refused" if reader.image_range is None else "clipped")
        elif self.has_floats and reader.image_range is None:
            effect = "floats are refused"
        elif high - low < (stop - start) / 2:
            effect = f"they become {levels} of 256 levels"
        else:
            return
        yield (
            f"{self.wide} of {self.seen} images have more than 8 bits, with grey values from {least:g} to {largest:g}: "
            f"data.image_range=[{low:g},{high:g}] fits them; with [{start:g},{stop:g}] {effect}"
        )


def _unnamed_files(folder: Path, names: Iterable[str]) -> Iterator[str]:
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if is_image_file(path)}
    unnamed = there - set(names)
    if unnamed:
        yield f"{len(unnamed)} image files in {folder} are in no image record, first: {min(unnamed)}"


def _suspicious_objects(annotations: Annotations, index: int) -> Iterator[str]:
    """Objects of image ``index`` that are there twice, without a pixel, or whose box is not that of their mask."""
    objects, size, image_id = annotations.objects(index), annotations.size(index), annotations.image_ids[index]
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
