"""What a data set hands out, and how a batch of it travels to the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from r3cnn.structures import InstanceMasks, Size, Target, canvas_of


@dataclass(frozen=True)
class Example:
    """One image as the data set hands it out: resized and augmented, not yet normalised or padded.

    Attributes:
        image: (3, h, w) uint8 RGB.
        target: Ground truth in pixels of ``image``.
        image_id: Id in the annotation file.
        original_size: Size of the image file in pixels (after EXIF rotation).
    """

    image: Tensor
    target: Target
    image_id: int
    original_size: Size

    @property
    def size(self) -> Size:
        """Size of the resized image in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True)
class Batch:
    """Images of one batch and their ground truth, packed: six tensors travel, whatever the batch holds.

    Attributes:
        pixels: (N,) uint8, the RGB images (3, h, w) behind one another, not padded.
        boxes: (T, 4) float32, ground truth of all images behind one another.
        labels: (T,) int64.
        windows: (T, 4) int64, mask windows.
        mask_pixels: (M,) uint8, contents of the mask windows.
        sizes: Size of each image in pixels.
        original_sizes: Size of each image file in pixels.
        image_ids: Ids in the annotation file.
        counts: Instances of each image.
        mask_lengths: Entries of ``mask_pixels`` of each image.
        largest: Size that holds every mask window of the image.
        crowds: (C, 4) float32, crowd boxes of all images behind one another.
        crowd_counts: Crowd boxes of each image.
    """

    pixels: Tensor
    boxes: Tensor
    labels: Tensor
    windows: Tensor
    mask_pixels: Tensor
    sizes: tuple[Size, ...]
    original_sizes: tuple[Size, ...]
    image_ids: tuple[int, ...]
    counts: tuple[int, ...]
    mask_lengths: tuple[int, ...]
    largest: tuple[Size, ...]
    crowds: Tensor
    crowd_counts: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def of(cls, examples: Sequence[Example]) -> Batch:
        """Packs examples of any sizes."""
        targets = [example.target for example in examples]
        return cls(
            pixels=torch.cat([example.image.reshape(-1) for example in examples]),
            boxes=torch.cat([target.boxes for target in targets]),
            labels=torch.cat([target.labels for target in targets]),
            windows=torch.cat([target.masks.windows for target in targets]),
            mask_pixels=torch.cat([target.masks.pixels for target in targets]),
            sizes=tuple(example.size for example in examples),
            original_sizes=tuple(example.original_size for example in examples),
            image_ids=tuple(example.image_id for example in examples),
            counts=tuple(len(target) for target in targets),
            mask_lengths=tuple(target.masks.pixels.numel() for target in targets),
            largest=tuple(target.masks.largest for target in targets),
            crowds=torch.cat([target.crowds for target in targets]),
            crowd_counts=tuple(len(target.crowds) for target in targets),
        )

    @property
    def canvas(self) -> Size:
        """Smallest canvas, a multiple of 32, that holds all images."""
        heights, widths = zip(*self.sizes, strict=True)
        return canvas_of((max(heights), max(widths)))

    @property
    def images(self) -> tuple[Tensor, ...]:
        """(3, h, w) uint8 views of each image."""
        parts = self.pixels.split([3 * height * width for height, width in self.sizes])
        return tuple(part.view(3, *size) for part, size in zip(parts, self.sizes, strict=True))

    @property
    def targets(self) -> tuple[Target, ...]:
        """Ground truth of each image; views."""
        parts = (self.boxes.split(self.counts), self.labels.split(self.counts), self.windows.split(self.counts))
        masks = self.mask_pixels.split(self.mask_lengths)
        crowds = self.crowds.split(self.crowd_counts)
        rows = zip(*parts, masks, self.sizes, self.largest, crowds, strict=True)
        return tuple(
            Target(boxes, labels, InstanceMasks(pixels, windows, canvas_of(size), largest), crowd)
            for boxes, labels, windows, pixels, size, largest, crowd in rows
        )

    def to(self, device: torch.device | str) -> Batch:
        """Copy on another device."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Copy in memory from which a device can copy while the host goes on."""
        return self._with_tensors(lambda tensor: tensor.pin_memory())

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            pixels=change(self.pixels),
            boxes=change(self.boxes),
            labels=change(self.labels),
            windows=change(self.windows),
            mask_pixels=change(self.mask_pixels),
            crowds=change(self.crowds),
        )
