"""RoIAlign (Mask R-CNN, arXiv 1703.06870, section 3) as one weighted gather from all pyramid levels at once.

Each bin of each RoI is a weighted sum of a few cells, and the weights are products of a weight per row and one per
column. torchvision's operator computes the same sum sample by sample and channel by channel; on a CPU that takes 4 to 7
times as long as a gather of whole feature vectors, and its gradient over 7 times (experiments/LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r3cnn.ops.gather import weighted_gather


@dataclass(frozen=True)
class Taps:
    """What the bins of one axis of N RoIs take from the cells along it.

    Attributes:
        cells: (N, S, T) int64 indices of cells.
        weights: (N, S, T) float32; 0 where a tap takes nothing.
    """

    cells: Tensor
    weights: Tensor


def gather_rois(
    features: Sequence[Tensor],
    image: Tensor,
    boxes: Tensor,
    level: Tensor,
    *,
    strides: Sequence[int],
    side: int,
    sampling_ratio: int,
) -> Tensor:
    """RoIAlign of every RoI from the level chosen for it; equals ``torchvision.ops.roi_align(…, aligned=True)``.

    Args:
        features: Levels (B, C, H, W), fastest in channels-last memory.
        image: (N,) int64 index of each RoI's image.
        boxes: (N, 4) in pixels of the network input.
        level: (N,) int64 index into ``features``.
        strides: Stride of each level in pixels.
        side: S, bins per axis.
        sampling_ratio: Samples per bin and axis; -1: as many as a bin has cells, rounded up.

    Returns:
        (N, C, S, S) in channels-last memory, of the dtype of the features; zeros for RoIs without area or with corners
        that are not finite.
    """
    channels, device = features[0].shape[1], boxes.device
    table = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, channels) for x in features])  # (all cells, C)
    heights, widths = (torch.tensor([x.shape[axis] for x in features], device=device) for axis in (2, 3))
    cells = torch.tensor([x.shape[0] * x.shape[2] * x.shape[3] for x in features], device=device)
    first = (cells.cumsum(0) - cells)[level] + image * (heights * widths)[level]  # (N,) the image's first cell
    scale = torch.tensor([1 / stride for stride in strides], device=device)[level, None]
    finite = boxes.isfinite().all(dim=1, keepdim=True)
    start = torch.where(finite, boxes.float(), 0.0) * scale - 0.5
    low, size = start[:, :2], start[:, 2:] - start[:, :2]
    ratio = torch.ceil(size / side) if sampling_ratio < 0 else torch.full_like(size, sampling_ratio)
    samples = torch.where(finite, ratio.clamp(min=0), 0.0).long()  # (N, 2) in x and y

    index, weight, offsets = [], [], torch.zeros(len(boxes), dtype=torch.int64, device=device)
    groups = samples.amax(dim=1)
    members = [(groups == group).nonzero()[:, 0] for group in groups.unique()]
    for rows in members:
        merge = sampling_ratio < 0
        x, y = (
            axis_taps(low[rows, axis], size[rows, axis], samples[rows, axis], limits[level[rows]], side, merge=merge)
            for axis, limits in enumerate((widths, heights))
        )
        at = first[rows, None, None] + y.cells * widths[level[rows], None, None]  # (N, S, T)
        index.append(at[:, :, None, :, None] + x.cells[:, None, :, None, :])
        weight.append(y.weights[:, :, None, :, None] * x.weights[:, None, :, None, :])  # (N, S, S, T, T)
        offsets[rows] = index[-1].shape[3] * index[-1].shape[4]
    return _weighted_sums(table, index, weight, members, offsets, side).to(features[0].dtype)


def axis_taps(low: Tensor, size: Tensor, samples: Tensor, limit: Tensor, side: int, *, merge: bool) -> Taps:
    """Cells and weights along one axis; arithmetic in the order of torchvision's operator, so roundings agree.

    Args:
        low: (N,) where each RoI begins, in cells; the centre of cell 0 is 0.
        size: (N,) its length in cells.
        samples: (N,) int64 samples per bin; 0 takes nothing.
        limit: (N,) int64 number of cells.
        side: S, bins.
        merge: Give samples that meet the same cell one common tap, which asks for samples at most one cell apart.
    """
    count = int(samples.max())
    bins = torch.arange(side, device=low.device)[None, :, None]
    steps = torch.arange(count, device=low.device)[None, None, :]
    bin_size, per_bin = (size / side)[:, None, None], samples[:, None, None]
    position = low[:, None, None] + bins * bin_size + (steps + 0.5) * bin_size / per_bin.clamp(min=1)  # (N, S, count)
    last = (limit - 1)[:, None, None]
    counts = (position >= -1) & (position <= limit[:, None, None]) & (steps < per_bin)
    position = position.clamp(min=0).minimum(last.float())  # beyond the last centre the last cell counts
    cell = position.long()
    share = position - cell
    weight = torch.where(counts, 1.0, 0.0) / per_bin.clamp(min=1)
    cells = torch.cat([cell, (cell + 1).minimum(last)], dim=2)
    weights = torch.cat([weight * (1 - share), weight * share], dim=2)  # (N, S, 2 * count)
    if not merge:
        return Taps(cells, weights)
    nearest = cell[..., :1]
    taps = nearest + torch.arange(count + 1, device=low.device)
    # Rounding can put the last sample on the border of one cell more, where its weight is 0.
    merged = torch.zeros(taps.shape, device=low.device).scatter_add(2, (cells - nearest).clamp(0, count), weights)
    return Taps(taps.minimum(last), merged)


def _weighted_sums(
    table: Tensor, index: list[Tensor], weight: list[Tensor], members: list[Tensor], taps: Tensor, side: int
) -> Tensor:
    """(N, C, S, S) from the groups' cells and weights, (n, S, S, T, T) each; ``taps`` are the RoIs' taps per bin."""
    ends = (taps * side * side).cumsum(0)
    begins = ends - taps * side * side
    flat_index = torch.zeros(int(ends[-1]) if len(ends) else 0, dtype=torch.int32, device=table.device)
    flat_weight = torch.zeros(flat_index.shape, device=table.device)
    for rows, cells, weights in zip(members, index, weight, strict=True):
        per_roi = cells[0].numel()
        target = (begins[rows, None] + torch.arange(per_roi, device=table.device)).flatten()
        flat_index[target] = cells.flatten().int()
        flat_weight[target] = weights.flatten()
    bins = torch.arange(side * side, device=table.device)
    offsets = (begins[:, None] + bins * taps[:, None]).flatten().int()
    sums = weighted_gather(table.float(), flat_index, flat_weight, offsets)
    return sums.view(-1, side, side, table.shape[1]).permute(0, 3, 1, 2)
