"""The Lightning data module of every data set: two COCO files and how their images are served."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from r3cnn.batch import Example
from r3cnn.data.annotations import Annotations
from r3cnn.data.augmentation import Augmentation
from r3cnn.data.checks import AnnotationError, OnBadAnnotation
from r3cnn.data.dataset import PAPER, CocoDataset, Crowd
from r3cnn.data.image_files import ImageFolder
from r3cnn.data.loading import MAX_MEGAPIXELS, ImageError, ImageReader, collate, warn_of_first
from r3cnn.data.reading import MAX_OVERHANG, read_annotations
from r3cnn.data.samplers import Dealt, EvalBatchSampler, TrainBatchSampler
from r3cnn.data.split import Split
from r3cnn.data.transforms import check_input, resized_size
from r3cnn.end_signals import leave_signals_to_parent
from r3cnn.names import composed
from r3cnn.ranges import check_range
from r3cnn.structures import Id

log = logging.getLogger(__name__)


class CocoDataModule(L.LightningDataModule):
    """Serves a training and a validation set of COCO format.

    It reads nothing before ``setup``, which ``category_ids`` and the data loaders call themselves when needed. Use it
    with ``Trainer(use_distributed_sampler=False)``: the samplers shard by themselves.

    Args:
        root: Folder that relative paths of ``train`` and ``val`` start from.
        train: Images to learn from.
        val: Images to evaluate on; None where there are none.
        classes: Names of the K classes in label order. They must be the categories of the training file, by name; the
            validation file may lack some and number them in its own way.
        batch_size: Training images per process.
        eval_batch_size: Evaluation images per process, at most.
        image_size: Upper bounds of the (shorter, longer) side in pixels.
        workers: Loading processes per loader; 0 loads in the main process.
        seed: Seed of order and augmentation, >= 0.
        flip: Probability in [0, 1] that a training image is mirrored.
        on_bad_annotation: ``error`` or ``skip``, see ``read_annotations``; ``skip`` leaves out missing and unreadable
            images as well.
        max_overhang: Share of a side of its image by which a box may reach over it; up to there it is clipped.
        mean: Mean of R, G and B on [0, 255]; the model's input is normalised with it on the device.
        std: Standard deviation of R, G and B on [0, 255].
        crowd: ``drop`` or ``ignore``: whether images hand out the boxes of their crowds, see `CocoDataset`; validation
            images as well, so that their RoIs are counted as those of training are. AP knows crowds from the file.
        augmentation: What else than flips happens to training images; None for nothing.
        prepare: Makes or fetches the files, called once in each process before they are read; has to return at once
            when they are there.
        pin_memory: Whether batches are pinned for an asynchronous copy, where there is a GPU.
        index_cache: Folder that the checked index of a large annotation file is kept in; None keeps nothing.
        image_range: Grey values (low, high) that become 0 and 255 in images of more than 8 bits, see `ImageReader`.
        max_megapixels: Images with more pixels are refused; None accepts any.

    Raises:
        ValueError: For a value out of range.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        train: Split,
        val: Split | None,
        classes: Sequence[str | float | bool],
        batch_size: int,
        eval_batch_size: int,
        image_size: Sequence[int],
        workers: int,
        seed: int,
        flip: float,
        on_bad_annotation: OnBadAnnotation,
        mean: Sequence[float],
        std: Sequence[float],
        max_overhang: float = MAX_OVERHANG,
        crowd: Crowd = "drop",
        augmentation: Augmentation | None = None,
        prepare: Callable[[], None] | None = None,
        pin_memory: bool = False,
        index_cache: str | Path | None = None,
        image_range: Sequence[float] | None = None,
        max_megapixels: float | None = MAX_MEGAPIXELS,
    ) -> None:
        super().__init__()
        check_range("[1, inf)", batch_size=batch_size, eval_batch_size=eval_batch_size)
        check_range("[0, inf)", workers=workers, seed=seed)
        check_input(image_size, mean, std)
        check_range("[0, 1]", flip=flip)
        check_range("[0, inf]", max_overhang=max_overhang)
        self.classes = tuple(composed(str(name)) for name in classes)  # YAML reads names such as 1 as numbers
        if not classes or len(set(self.classes)) != len(classes):
            raise ValueError(f"classes is {list(classes)}: names, each one once, are needed")
        self.train, self.val = train.below(root), None if val is None else val.below(root)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.mean, self.std = tuple(mean), tuple(std)
        self.reader = ImageReader(image_range, max_megapixels)
        self._batch_size, self._eval_batch_size = batch_size, eval_batch_size
        self._workers, self._pin_memory = workers, pin_memory
        self._seed, self._flip = seed, flip
        self._crowd: Crowd = crowd
        self._augmentation = augmentation or PAPER
        self.on_bad_annotation: OnBadAnnotation = on_bad_annotation
        self.max_overhang = float(max_overhang)
        self._prepare = prepare
        self._index_cache = None if index_cache is None else Path(index_cache).expanduser()
        self._position: tuple[int, int, tuple[Dealt, ...]] = (0, 0, ())
        self._sampler: TrainBatchSampler | None = None

    @cached_property
    def train_set(self) -> CocoDataset:
        """The training images, read on first use."""
        found = self._read(self.train, flip=self._flip, augmentation=self._augmentation, may_lack_classes=False)
        if not found.num_objects:
            raise AnnotationError(
                f"{self.train.annotations}: nothing to learn from in the images that are used. The whole file: "
                f"{'; '.join([found.annotations.summary, *found.annotations.notes])}"
            )
        return found

    @cached_property
    def val_set(self) -> CocoDataset:
        """The validation images, read on first use; with ``skip`` all of them, since evaluation needs each one.

        Raises:
            ValueError: If there are none.
        """
        is_skipping = self.on_bad_annotation == "skip"
        return self._val_records.without_unreadable() if is_skipping else self._val_records

    @cached_property
    def _val_records(self) -> CocoDataset:
        """The validation images before anybody has looked whether they can be read."""
        return self._read(self.val_split, flip=0.0, augmentation=PAPER, may_lack_classes=True)

    @property
    def val_split(self) -> Split:
        """The images to evaluate on.

        Raises:
            ValueError: If there are none.
        """
        if self.val is None:
            raise ValueError("data.val is null, so there are no images to evaluate on: name a data set with data=…")
        return self.val

    @property
    def val_annotations(self) -> Path:
        """The validation file.

        Raises:
            ValueError: If there is none.
        """
        return self.val_split.annotation_file

    @property
    def category_ids(self) -> tuple[Id, ...]:
        """The validation file's category id of each label; a free id for a class that the file lacks.

        Without a validation file they are those of the training file.
        """
        images = self.train_set if self.val is None else self._val_records
        return images.annotations.category_ids

    def prepare_data(self) -> None:
        """Makes or fetches the files, if this data set knows how to; only the first call does anything."""
        if self._prepare is not None:
            self._prepare()
            self._prepare = None

    def setup(self, stage: str | None = None) -> None:
        """Reads and checks what ``stage`` needs: both files for ``fit``, the validation file otherwise.

        Raises:
            AnnotationError: For a bad annotation file.
            ImageError: If an image is not there, or the first one cannot be read.
        """
        if self.val is not None:
            log.debug("%d validation images", len(self.val_set))
        if stage in ("fit", None):
            found = self.train_set
            if self._rank_and_world()[0] == 0:
                log.info(
                    "%s: training on %d images; in the file: %s",
                    self.train.annotations,
                    len(found),
                    found.annotations.summary,
                )

    def set_position(self, epoch: int, batch: int, earlier: Sequence[Dealt] = ()) -> None:
        """Lets training go on at a batch of an epoch; images, their order and their augmentation follow from it.

        Before ``train_dataloader`` it holds for the loader to come, afterwards for its next iteration. See
        `TrainBatchSampler.set_position`.
        """
        self._position = (epoch, batch, tuple(earlier))
        if self._sampler is not None:
            self._sampler.set_position(*self._position)

    def num_batches(self, world: int) -> tuple[int, int]:
        """Training batches of each of ``world`` ranks in an epoch, and validation batches of all of them together.

        Images that cannot be read count: to look at all of them takes a large data set a minute.

        Raises:
            ValueError: If there are fewer training batches than ranks.
        """
        sizes = self.train_set.sizes
        train = TrainBatchSampler(sizes, batch_size=self._batch_size, seed=self._seed, world=world)
        return len(train), 0 if self.val is None else self.val_sampler(self._val_records, 0, 1, 1.0).total

    @property
    def order(self) -> dict[str, object]:
        """What the order of the training images is a function of, beside the epoch."""
        return {"seed": self._seed, "images": len(self.train_set), "digest": self.train_set.digest}

    def train_sampler(self) -> TrainBatchSampler:
        """Batches of this rank from the position on that was set."""
        rank, world = self._rank_and_world()
        sampler = TrainBatchSampler(
            self.train_set.sizes, batch_size=self._batch_size, seed=self._seed, rank=rank, world=world
        )
        sampler.repeats = getattr(self.trainer, "overfit_batches", 0) > 0
        sampler.set_position(*self._position)
        return sampler

    def train_dataloader(self) -> DataLoader[Example]:
        """Shuffled training batches of this rank; yields ``Batch``."""
        self._sampler = self.train_sampler()
        return self._loader(self.train_set, self._sampler)

    def val_dataloader(self) -> DataLoader[Example]:
        """Evaluation batches of this rank, one canvas each; yields ``Batch``. Ranks may have unequally many.

        The trainer's ``limit_val_batches`` holds for the batches of all ranks together: the same images on any number
        of them. Lightning then applies it to those of each rank as well, where a number changes nothing any more but a
        share would; so the trainer is given the number that a share stands for.
        """
        rank, world = self._rank_and_world()
        limit = 1.0 if self.trainer is None else self.trainer.limit_val_batches
        sampler = self.val_sampler(self.val_set, rank, world, limit)
        if self.trainer is not None and limit < 1:
            self.trainer.limit_val_batches = sampler.total
        return self._loader(self.val_set, sampler)

    def val_sampler(self, images: CocoDataset, rank: int, world: int, limit: float) -> EvalBatchSampler:
        """Evaluation batches of one of ``world`` ranks, see `EvalBatchSampler`.

        Raises:
            ValueError: For a limit above 0 that is less than one batch.
        """
        sizes = [resized_size((height, width), self.image_size) for height, width in images.sizes.tolist()]
        return EvalBatchSampler(sizes, batch_size=self._eval_batch_size, rank=rank, world=world, limit=limit)

    def _rank_and_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _read(self, split: Split, *, flip: float, augmentation: Augmentation, may_lack_classes: bool) -> CocoDataset:
        self.prepare_data()
        annotations = read_annotations(
            split.annotation_file,
            self.classes,
            self.on_bad_annotation,
            may_lack_classes=may_lack_classes,
            max_overhang=self.max_overhang,
            index_cache=self._index_cache,
        )
        annotations, indices = self._with_files(split, annotations, split.select(annotations))
        with suppress(ImageError) if self.on_bad_annotation == "skip" else nullcontext():
            warn_of_first(split.image_folder / str(annotations.file_names[indices[0]]), self.reader)
        return CocoDataset(
            annotations,
            split.image_folder,
            indices=indices,
            image_size=self.image_size,
            flip=flip,
            augmentation=augmentation,
            seed=self._seed,
            crowd=self._crowd,
            reader=self.reader,
            skips_unreadable=self.on_bad_annotation == "skip",
        )

    def _with_files(
        self, split: Split, annotations: Annotations, indices: npt.NDArray[np.int64]
    ) -> tuple[Annotations, npt.NDArray[np.int64]]:
        """Annotations with the image files' names on the disk, and those of ``indices`` whose file is there."""
        folder, given, missing = ImageFolder(split.image_folder), annotations.file_names.tolist(), dict[int, str]()
        names = list(given)
        for index in indices.tolist():
            try:
                names[index] = folder.find(given[index])
            except ValueError as error:
                missing[index] = str(error)
        if missing:
            first = f"{split.annotation_file}: its image {next(iter(missing.values()))}"
            more = f" (and {len(missing) - 1} more missing images)" if len(missing) > 1 else ""
            if self.on_bad_annotation == "error" or len(missing) == len(indices):
                raise ImageError(f"{first}{more}")
            log.warning("left out %d of %d images, first: %s", len(missing), len(indices), first)
        if names != given:  # else the array that processes share stays
            annotations = replace(annotations, file_names=np.array(names, dtype=np.str_))
        return annotations, indices[~np.isin(indices, [*missing])]

    def _loader(self, images: CocoDataset, sampler: TrainBatchSampler | EvalBatchSampler) -> DataLoader[Example]:
        return DataLoader(
            images,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=self._workers,
            worker_init_fn=leave_signals_to_parent,
            persistent_workers=self._workers > 0,
            multiprocessing_context=_start_method() if self._workers else None,
            pin_memory=self._pin_memory and torch.cuda.is_available(),
        )


def _start_method() -> str | None:
    """How workers start: forked on Linux, where they share the index instead of each unpickling a copy of it.

    That is Python's own way up to 3.13; later ones fork from a server that has nothing to share. None is Python's way.
    """
    return "fork" if sys.platform == "linux" else None
