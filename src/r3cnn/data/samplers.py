"""Which images form which batch: pure functions of (seed, epoch) for training and of the data set for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from r3cnn.structures import Size, canvas_of


class Draw(NamedTuple):
    """What a data set is asked for.

    Attributes:
        epoch: The epoch in which the image is drawn; its augmentation depends on it.
        item: Position of the image in the data set.
    """

    epoch: int
    item: int


class TrainBatchSampler(Sampler[list[Draw]]):
    """Shuffled batches of images of one orientation, so that little of a batch's canvas is padding.

    All batches of an epoch are formed from (seed, epoch) alone and then dealt out, batch i to rank ``i % world``. Every
    image is in one batch at most; of each orientation the last batch may be short. Up to ``world - 1`` batches, other
    ones in every epoch, are left out so that all ranks have equally many.

    Args:
        sizes: (I, 2) (height, width) of the images.
        batch_size: Images per batch.
        seed: Seed of the run, >= 0.
        rank: This process, in [0, world).
        world: Number of processes.

    Attributes:
        repeats: Whether every epoch has the batches of the first one, to overfit them.

    Raises:
        ValueError: If there are fewer batches than ranks.
    """

    def __init__(
        self, sizes: npt.NDArray[np.int64], *, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self._is_wide = sizes[:, 1] >= sizes[:, 0]
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._world = world
        self._epoch = 0
        self._first_batch = 0
        self.repeats = False
        wide = int(self._is_wide.sum())
        num_batches = sum(-(-count // batch_size) for count in (wide, len(sizes) - wide))
        if num_batches < world:
            got = f"{len(sizes)} training images make {num_batches} batches of batch_size={batch_size}"
            raise ValueError(f"{got}, there are {world} processes: at least one batch each is needed")
        self._length = num_batches // world

    @property
    def sampler(self) -> TrainBatchSampler:
        """Itself: Lightning looks here for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of ``epoch``, unless the position is already inside it."""
        if epoch != self._epoch:
            self.set_position(epoch, 0)

    def set_position(self, epoch: int, batch: int) -> None:
        """Goes to a batch of an epoch, where a resumed run continues; the length stays that of the whole epoch."""
        if epoch < 0 or not 0 <= batch <= self._length:
            raise ValueError(f"position is epoch {epoch}, batch {batch}: an epoch has {self._length} batches")
        self._epoch, self._first_batch = epoch, batch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = 0 if self.repeats else self._epoch
        batches = self._batches(epoch)[self._first_batch :]
        return iter([[Draw(epoch, index) for index in batch] for batch in batches])

    def _batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of ``epoch``."""
        random = np.random.default_rng((self._seed, epoch))
        batches: list[list[int]] = []
        for members in (np.flatnonzero(self._is_wide), np.flatnonzero(~self._is_wide)):
            batches += _chunks(random.permutation(members).tolist(), self._batch_size)
        order = random.permutation(len(batches))[: self._length * self._world]
        return [batches[i] for i in order[self._rank :: self._world]]


class EvalBatchSampler(Sampler[list[Draw]]):
    """Batches of one canvas each, formed once in data-set order and dealt out whole, batch i to rank ``i % world``.

    The same images meet in the same batch on any number of ranks, so outputs do not depend on it, to the bit. A rank
    that none is left for repeats one that another rank has, since Lightning's loop passes over a rank without batches,
    which would then be missing when the results come together; ``is_stand_in`` says so, for it must not count.
    ``total`` is the number of batches of all ranks together.

    Args:
        sizes: (height, width) of the images after resizing, in data-set order.
        batch_size: Images per batch, at most.
        rank: This process, in [0, world).
        world: Number of processes.
        limit: Use only the first batches of all ranks together: so many, or, as a float in [0, 1], this share of them.

    Raises:
        ValueError: For a share above 0 that is less than one batch.
    """

    def __init__(
        self, sizes: Sequence[Size], *, batch_size: int, rank: int = 0, world: int = 1, limit: float = 1.0
    ) -> None:
        by_canvas: dict[Size, list[int]] = {}
        for index, size in enumerate(sizes):
            by_canvas.setdefault(canvas_of(size), []).append(index)
        batches = [batch for members in by_canvas.values() for batch in _chunks(members, batch_size)]
        batches.sort(key=lambda batch: batch[0])
        batches = batches[: _number_of(limit, len(batches))]
        dealt = batches[rank::world]
        self.total = len(batches)
        self.is_stand_in = not dealt
        self._batches = dealt or batches[-1:]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter([[Draw(0, index) for index in batch] for batch in self._batches])


def _number_of(limit: float, count: int) -> int:
    """How many of ``count`` batches are used; an int counts them, as Lightning understands its limits."""
    if isinstance(limit, int):
        return min(limit, count)
    number = int(limit * count)
    if number == 0 < limit and count:
        raise ValueError(
            f"limit_val_batches is {limit} of {count} batches, which is none: at least {1 / count} is needed"
        )
    return number


def _chunks(members: Sequence[int], size: int) -> list[list[int]]:
    return [list(members[start : start + size]) for start in range(0, len(members), size)]
