"""Regions of interest of a batch in a fixed number of slots per image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rois:
    """R slots per image, not all of them taken.

    Attributes:
        boxes: (B, R, 4) float32 in pixels of the network input; zero where empty is not guaranteed.
        valid: (B, R) bool, whether the slot is taken.
    """

    boxes: Tensor
    valid: Tensor

    def rows(self, wanted: Tensor, *, keep_empty: bool) -> RoiRows:
        """The slots as one list over all images.

        Args:
            wanted: (B, R) bool, slots that are needed.
            keep_empty: Keep all B * R rows so that shapes are static and nothing has to be read from the device;
                otherwise only the wanted ones.
        """
        flat = wanted.flatten()
        if keep_empty:
            slot = torch.arange(flat.numel(), device=flat.device)
        else:
            slot = flat.nonzero()[:, 0]
        boxes = torch.where(flat[slot, None], self.boxes.flatten(0, 1)[slot], 0.0)
        return RoiRows(boxes, slot // self.boxes.shape[1], slot, flat[slot])


@dataclass(frozen=True)
class RoiRows:
    """N RoIs of a batch behind one another.

    Attributes:
        boxes: (N, 4) float32; zero in rows that are not valid.
        image: (N,) int64 index of the image in the batch.
        slot: (N,) int64 index into the flattened slots that the rows came from.
        valid: (N,) bool.
    """

    boxes: Tensor
    image: Tensor
    slot: Tensor
    valid: Tensor

    def scatter(self, values: Tensor, like: Tensor) -> Tensor:
        """Puts values (N, …) back into slots: (B, R, …) with the (B, R) of ``like``, zero elsewhere."""
        out = values.new_zeros(like.shape[0] * like.shape[1], *values.shape[1:])
        return out.index_copy(0, self.slot, values).view(*like.shape[:2], *values.shape[1:])
