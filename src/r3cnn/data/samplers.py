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


class Dealt(NamedTuple):
    """A part of an epoch that has been learnt from.

    Attributes:
        batch_size: Images per batch.
        world: Number of processes.
        batches: Batches that each of them was given.
    """

    batch_size: int
    world: int
    batches: int


class TrainBatchSampler(Sampler[list[Draw]]):
    """Shuffled batches of images of one orientation, so that little of a batch's canvas is padding.

    All batches of an epoch are formed from (seed, epoch) alone and then dealt out, batch i to rank ``i % world``. Every
    image is in one batch at most; of each orientation the last batch may be short. Up to ``world - 1`` batches, other
    ones in every epoch, are left out so that all ranks have equally many.

    Where an epoch was begun with other sizes, the images that are left over from these form new batches. Some are split
    so that none is left out, unless that makes more batches than a whole epoch has.

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
        self._earlier: tuple[Dealt, ...] = ()
        self._length = self._batches_each(batch_size, world)
        if self._length == 0:
            got = f"{len(sizes)} training images make {self._batches_each(batch_size, 1)} batches of {batch_size=}"
            raise ValueError(f"{got}, there are {world} processes: at least one batch each is needed")

    @property
    def sampler(self) -> TrainBatchSampler:
        """Itself: Lightning looks here for ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Goes to the start of ``epoch``, unless the position is already inside it."""
        if epoch != self._epoch:
            self.set_position(epoch, 0)

    def set_position(self, epoch: int, batch: int, earlier: Sequence[Dealt] = ()) -> None:
        """Goes to a batch of an epoch, where a resumed run continues; the length stays that of the whole epoch.

        Args:
            epoch: The epoch, counted from 0.
            batch: The batch, counted from 0 after the ``earlier`` parts.
            earlier: Parts of the epoch that were dealt out with other sizes, in their order.

        Raises:
            ValueError: For a batch that the epoch does not have.
        """
        if epoch < 0 or not 0 <= batch <= self._length:
            raise ValueError(f"position is epoch {epoch}, batch {batch}: an epoch has {self._length} batches")
        self._epoch, self._first_batch, self._earlier = epoch, batch, tuple(earlier)

    @property
    def num_left(self) -> int:
        """Batches of this rank, as of every other, from the position to the end of the epoch."""
        return len(self._batches(0 if self.repeats else self._epoch)) - self._first_batch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = 0 if self.repeats else self._epoch
        batches = self._batches(epoch)[self._first_batch :]
        return iter([[Draw(epoch, index) for index in batch] for batch in batches])

    def _batches(self, epoch: int) -> list[list[int]]:
        """This rank's batches of ``epoch``, after its earlier parts."""
        is_left = np.ones(len(self._is_wide), dtype=bool)
        for part, (batch_size, world, batches) in enumerate(self._earlier):
            for seen in self._formed(epoch, part, is_left, batch_size, world)[: batches * world]:
                is_left[seen] = False
        rest = self._formed(epoch, len(self._earlier), is_left, self._batch_size, self._world)
        return rest[self._rank :: self._world]

    def _formed(
        self, epoch: int, part: int, is_left: npt.NDArray[np.bool_], batch_size: int, world: int
    ) -> list[list[int]]:
        """Batches of all ranks together, in the order of dealing, of the images left for a part of an epoch."""
        random = np.random.default_rng((self._seed, epoch, part) if part else (self._seed, epoch))
        batches: list[list[int]] = []
        for members in (np.flatnonzero(is_left & self._is_wide), np.flatnonzero(is_left & ~self._is_wide)):
            batches += _chunks(random.permutation(members).tolist(), batch_size)
        most = self._batches_each(batch_size, world) * world  # what Lightning expects of an epoch
        while part and len(batches) % world and len(batches) < most and (largest := max(batches, key=len))[1:]:
            batches.remove(largest)
            batches += _chunks(largest, -(-len(largest) // 2))
        order = random.permutation(len(batches))[: len(batches) // world * world]
        return [batches[i] for i in order]

    def _batches_each(self, batch_size: int, world: int) -> int:
        """Batches of a whole epoch on each of ``world`` ranks."""
        wide = int(self._is_wide.sum())
        return sum(-(-count // batch_size) for count in (wide, len(self._is_wide) - wide)) // world


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
        batches = batches[: used_batches(len(batches), limit, "limit_val_batches")]
        dealt = batches[rank::world]
        self.total = len(batches)
        self.is_stand_in = not dealt
        self._batches = dealt or batches[-1:]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter([[Draw(0, index) for index in batch] for batch in self._batches])


def used_batches(count: int, limit: float, name: str) -> int:
    """How many of ``count`` batches are used; an int counts them, as Lightning understands its limits.

    Raises:
        ValueError: For a share above 0 that is less than one batch; it names the limit.
    """
    used = min(limit, count) if isinstance(limit, int) else int(limit * count)
    if used == 0 < count and limit > 0:
        raise ValueError(f"{name} is {limit} of {count} batches, which is none: {name}=1 uses one")
    return used


def _chunks(members: Sequence[int], size: int) -> list[list[int]]:
    return [list(members[start : start + size]) for start in range(0, len(members), size)]
