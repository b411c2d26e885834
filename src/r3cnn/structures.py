"""The tensors that travel between data, model and evaluation.

Boxes are ``(x1, y1, x2, y2)``, float32, in pixels of the network input (the resized image) unless a field says
otherwise. Labels are in ``[0, K)`` for K foreground classes; background is ``K``. Sizes are ``(height, width)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from r3cnn.names import Id as Id
from r3cnn.names import Size as Size


@dataclass(frozen=True)
class InstanceMasks:
    """Binary masks of G instances, each stored only inside a window of the image.

    A mask is zero outside its window. Memory grows with the windows, not with the image, and a window may be empty.

    Attributes:
        pixels: (N,) uint8 in {0, 1}; the windows' pixels one after the other, each row by row.
        windows: (G, 4) int64 ``(x, y, width, height)`` inside the canvas.
        canvas: Size of the image that the windows lie in, in pixels.
        largest: Height and width that hold every window; known on the host, so no tensor has to be read for it.
    """

    pixels: Tensor
    windows: Tensor
    canvas: Size
    largest: Size

    def __post_init__(self) -> None:
        if self.pixels.ndim != 1 or self.pixels.dtype != torch.uint8:
            raise ValueError(f"pixels must be 1-D uint8, got {tuple(self.pixels.shape)} {self.pixels.dtype}")
        if self.windows.ndim != 2 or self.windows.shape[1] != 4 or self.windows.dtype != torch.int64:
            raise ValueError(f"windows must be (G, 4) int64, got {tuple(self.windows.shape)} {self.windows.dtype}")

    def __len__(self) -> int:
        return self.windows.shape[0]

    @classmethod
    def from_windows(cls, crops: Sequence[Tensor], corners: Sequence[tuple[int, int]], canvas: Size) -> InstanceMasks:
        """Packs one (h, w) uint8 crop per instance, each with the ``(x, y)`` of its upper left corner."""
        if not crops:
            return cls.empty(canvas)
        rows = [(x, y, crop.shape[1], crop.shape[0]) for crop, (x, y) in zip(crops, corners, strict=True)]
        return cls(
            pixels=torch.cat([crop.reshape(-1) for crop in crops]),
            windows=torch.tensor(rows, dtype=torch.int64),
            canvas=canvas,
            largest=(max(r[3] for r in rows), max(r[2] for r in rows)),
        )

    @classmethod
    def empty(cls, canvas: Size) -> InstanceMasks:
        """No instance at all."""
        return cls(torch.zeros(0, dtype=torch.uint8), torch.zeros(0, 4, dtype=torch.int64), canvas, (0, 0))

    @classmethod
    def from_dense(cls, masks: Tensor) -> InstanceMasks:
        """Packs (G, H, W) masks, {0, 1}, with the whole image as every window."""
        count, height, width = masks.shape
        windows = torch.tensor([0, 0, width, height], device=masks.device).repeat(count, 1)
        pixels = masks.to(torch.uint8).reshape(-1)
        return cls(pixels, windows, (height, width), (height, width) if count else (0, 0))

    def to_dense(self) -> Tensor:
        """(G, H, W) uint8 masks of the whole canvas; for drawing and tests, not for training."""
        dense = torch.zeros(len(self), *self.canvas, dtype=torch.uint8)
        start = 0
        for mask, (x, y, width, height) in zip(dense, self.windows.tolist(), strict=True):
            stop = start + width * height
            mask[y : y + height, x : x + width] = self.pixels[start:stop].reshape(height, width).cpu()
            start = stop
        return dense

    def to(self, device: torch.device | str) -> InstanceMasks:
        """Copy on another device."""
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=True),
            windows=self.windows.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Target:
    """Ground truth of one image: G instances in pixels of the network input.

    Attributes:
        boxes: (G, 4) float32, inside the image.
        labels: (G,) int64 in [0, K).
        masks: G masks on the padded canvas of the image.
        crowds: (C, 4) float32, boxes of regions with uncounted objects; boxes inside them are no background.
    """

    boxes: Tensor
    labels: Tensor
    masks: InstanceMasks
    crowds: Tensor = field(default_factory=lambda: torch.zeros(0, 4))

    def __post_init__(self) -> None:
        if self.crowds.ndim != 2 or self.crowds.shape[1] != 4:
            raise ValueError(f"crowds must be (C, 4), got {tuple(self.crowds.shape)}")
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ValueError(f"boxes must be (G, 4), got {tuple(self.boxes.shape)}")
        if not len(self.boxes) == len(self.labels) == len(self.masks):
            counts = f"{len(self.boxes)} boxes, {len(self.labels)} labels, {len(self.masks)} masks"
            raise ValueError(f"one label and one mask per box are needed, got {counts}")

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def to(self, device: torch.device | str) -> Target:
        """Copy on another device."""
        return Target(
            self.boxes.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.masks.to(device),
            self.crowds.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Rois:
    """R slots per image, not all of them taken.

    Attributes:
        boxes: (B, R, 4) float32 in pixels of the network input; anything in empty slots.
        valid: (B, R) bool, whether the slot is taken.
    """

    boxes: Tensor
    valid: Tensor

    def rows(self, *, keep_empty: bool) -> RoiRows:
        """The slots as one list over all images.

        Args:
            keep_empty: Keep all B * R rows, so that shapes are static and nothing has to be read from the device;
                otherwise only those that are taken.
        """
        flat = self.valid.flatten()
        slot = torch.arange(flat.numel(), device=flat.device) if keep_empty else flat.nonzero()[:, 0]
        boxes = torch.where(flat[slot, None], self.boxes.flatten(0, 1)[slot], 0.0)
        return RoiRows(boxes, slot // self.boxes.shape[1], slot, flat[slot], keep_empty)


@dataclass(frozen=True)
class RoiRows:
    """N RoIs of a batch behind one another.

    Attributes:
        boxes: (N, 4) float32; zero in rows that are not valid.
        image: (N,) int64 index of the image in the batch.
        slot: (N,) int64 index into the flattened slots that the rows came from.
        valid: (N,) bool.
        is_static: Whether N is fixed, so that nothing about the rows may be read from the device either.
    """

    boxes: Tensor
    image: Tensor
    slot: Tensor
    valid: Tensor
    is_static: bool

    def scatter(self, values: Tensor, like: Tensor) -> Tensor:
        """Puts values (N, …) back into slots: (B, R, …) with the (B, R) of ``like``, zero elsewhere."""
        out = values.new_zeros(like.shape[0] * like.shape[1], *values.shape[1:])
        return out.index_copy(0, self.slot, values).view(*like.shape[:2], *values.shape[1:])


@dataclass(frozen=True)
class LoopTrace:
    """The way of the RoIs through one loop, for those who watch.

    Attributes:
        offered: (B, R) RoIs that the loop was given, before ground truth was added and before any were sampled.
        kept: (B, S) those of them that it worked on; slots with added ground truth are empty.
        refined: (B, S, 4) what it made of them, slot by slot, clipped to the image; anything in empty slots.
    """

    offered: Rois
    kept: Rois
    refined: Tensor


LoopObserver = Callable[[Sequence[LoopTrace]], None]


@dataclass(frozen=True)
class ScoredRois:
    """RoIs with what they are ranked by.

    Attributes:
        rois: B images, R slots each.
        scores: (B, R) float32, larger is better; anything in empty slots.
    """

    rois: Rois
    scores: Tensor


@dataclass(frozen=True)
class Detections:
    """What was found in one image: D instances, best score first.

    Attributes:
        boxes: (D, 4) float32 in pixels of the network input.
        scores: (D,) float32 in [0, 1].
        labels: (D,) int64 in [0, K).
        masks: (D, M, M) float32 probabilities on a grid over the box, not yet pasted.
        mask_scores: (D,) float32 that rank the masks; equal to ``scores`` without a mask-IoU head.
        has_mask_scores: Whether a mask-IoU head made ``mask_scores``.
        mask_threshold: A pixel belongs to a mask from this probability on.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor
    mask_scores: Tensor
    has_mask_scores: bool = False
    mask_threshold: float = 0.5

    def __len__(self) -> int:
        return self.scores.shape[0]

    def to(self, device: torch.device | str) -> Detections:
        """Copy on another device."""
        return replace(
            self,
            boxes=self.boxes.to(device),
            scores=self.scores.to(device),
            labels=self.labels.to(device),
            masks=self.masks.to(device),
            mask_scores=self.mask_scores.to(device),
        )


MOST_PIXELS = 2**30
"""Of an image at the network's input, to the bounds of which small ones are enlarged."""


def canvas_of(size: Size, divisor: int = 32) -> Size:
    """Smallest canvas with sides that are multiples of ``divisor`` and that holds an image of ``size``."""
    height, width = size
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor
