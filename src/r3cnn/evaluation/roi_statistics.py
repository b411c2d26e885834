"""What the loops do to the RoIs: counts that stay on the device until they are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import Metric

from r3cnn.batch import Batch
from r3cnn.ops.boxes import pairwise_iou
from r3cnn.ops.matching import Matcher, Matches, outside_crowds
from r3cnn.structures import LoopTrace, Rois

NUM_BINS = 20
BIN_EDGES = tuple(edge / NUM_BINS for edge in range(NUM_BINS + 1))
SIZES = ("small", "medium", "large")
SIZE_LIMITS = (32.0**2, 96.0**2)  # COCO's, square pixels of the image file
# Gains are summed as whole multiples of this, so that no order of images and no number of ranks changes a sum.
GAIN_UNIT = 2.0**-24

Counts = dict[str, NDArray[np.int64]]


class RoiStatistics(Metric):
    """Counts RoIs per loop by IoU, class and object size, and what refinement did to them.

    Everything is a whole number, so sums over batches and ranks are exact. ``update`` reads nothing from the device.

    Of the RoIs that a loop is offered (before ground truth is added and before any are sampled; figure 2 of the
    paper): ``ignored`` (L,) RoIs inside crowds, and of the others: ``histogram`` (L, 20) by best IoU, in bins of 0.05,
    closed to the left, 1 in the last; ``classes`` (L, K, 2) and ``sizes`` (L, 3, 2) count positives and negatives by
    the object that they are matched with, for a negative the one that it overlaps most; ``background`` (L,) negatives
    that touch no object. Of those that it works on and that touch an object: ``gains`` (L, 3, 20) by IoU before, their
    number, the sum of what their IoU with that same object gained in units of 2^-24, and how many got worse;
    ``positive_gains`` (L, 3) the same of the positives. L loops, K classes.

    Args:
        num_classes: K, foreground classes.
        iou_thresholds: IoU from which on a RoI is positive, one per loop.
        crowd_iof: Part of a RoI, in (0, 1], that may lie in a crowd; the others are ignored.
    """

    full_state_update = False

    def __init__(self, num_classes: int, iou_thresholds: Sequence[float], crowd_iof: float) -> None:
        super().__init__(compute_with_cache=False)
        if not iou_thresholds:
            raise ValueError("iou_thresholds is empty: one per loop is needed")
        self.iou_thresholds = tuple(iou_thresholds)
        self.num_classes, self.crowd_iof = num_classes, crowd_iof
        loops = len(self.iou_thresholds)
        self.shapes = {
            "images": (),
            "histogram": (loops, NUM_BINS),
            "classes": (loops, num_classes, 2),
            "sizes": (loops, len(SIZES), 2),
            "background": (loops,),
            "ignored": (loops,),
            "gains": (loops, 3, NUM_BINS),
            "positive_gains": (loops, 3),
        }
        self.images: Tensor
        for name, shape in self.shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.inner_edges: Tensor
        self.register_buffer("inner_edges", torch.tensor(BIN_EDGES[1:-1]), persistent=False)
        self.size_limits: Tensor
        self.register_buffer("size_limits", torch.tensor(SIZE_LIMITS), persistent=False)

    @torch.no_grad()
    def update(self, batch: Batch, traces: Sequence[LoopTrace]) -> None:
        """Adds a batch.

        Args:
            batch: The images with their ground truth, on the device of the traces.
            traces: The way of the RoIs through each loop.

        Raises:
            ValueError: If there are more or fewer loops than thresholds.
        """
        if len(traces) != len(self.iou_thresholds):
            raise ValueError(f"{len(traces)} loops ran, {len(self.iou_thresholds)} have an IoU threshold")
        truth = _Truth(batch, self.size_limits)
        self.images = self.images + len(batch)
        per_loop = [
            self._offered(truth, trace.offered, threshold) | self._refined(truth, trace, threshold)
            for trace, threshold in zip(traces, self.iou_thresholds, strict=True)
        ]
        for name in per_loop[0]:
            setattr(self, name, getattr(self, name) + torch.stack([counts[name] for counts in per_loop]))

    def compute(self) -> Counts:
        """The counts of all ranks, on every rank."""
        return {name: getattr(self, name).cpu().numpy() for name in self.shapes}

    def counts(self) -> Counts:
        """``compute`` without a complaint about a rank that saw no image."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*was called before the ``update`` method.*")
            return self.compute()

    def _offered(self, truth: _Truth, rois: Rois, threshold: float) -> dict[str, Tensor]:
        usable = rois.valid & outside_crowds(rois.boxes, truth.crowds, self.crowd_iof)
        match = truth.match(rois.boxes, usable, threshold)
        touching = match.negative & (match.iou > 0)
        kinds = torch.stack([match.positive, touching], dim=-1)  # (B, R, 2)
        return {
            "histogram": _count(torch.bucketize(match.iou, self.inner_edges, right=True), usable, NUM_BINS),
            "classes": _count_rows(truth.of(truth.labels, match), kinds, self.num_classes),
            "sizes": _count_rows(truth.of(truth.sizes, match), kinds, len(SIZES)),
            "background": (match.negative & ~touching).sum(),
            "ignored": (rois.valid & ~usable).sum(),
        }

    def _refined(self, truth: _Truth, trace: LoopTrace, threshold: float) -> dict[str, Tensor]:
        match = truth.match(trace.kept.boxes, trace.kept.valid, threshold)
        objects = truth.boxes_of(match)
        before, after = _iou_of_pairs(trace.kept.boxes, objects), _iou_of_pairs(trace.refined, objects)
        touching = trace.kept.valid & (before > 0)
        gain = torch.where(touching, ((after - before) / GAIN_UNIT).round(), 0.0).to(torch.int64)
        values = torch.stack([touching.long(), gain, (touching & (gain < 0)).long()], dim=-1)  # (B, S, 3)
        bins = torch.bucketize(before, self.inner_edges, right=True)
        return {
            "gains": _count_rows(bins, values, NUM_BINS).T,
            "positive_gains": (values * match.positive[..., None]).sum(dim=(0, 1)),
        }


class _Truth:
    """Ground truth of a batch in G slots per image, with the COCO size of each object."""

    def __init__(self, batch: Batch, size_limits: Tensor) -> None:
        def padded(values: Tensor) -> Tensor:
            return pad_sequence(list(values.split(batch.counts)), batch_first=True)

        self.boxes, self.labels = padded(batch.boxes.float()), padded(batch.labels)
        self.valid = padded(torch.ones_like(batch.labels, dtype=torch.bool))
        self.sizes = padded(torch.bucketize(file_areas(batch), size_limits, right=True))
        self.crowds = pad_sequence(list(batch.crowds.float().split(batch.crowd_counts)), batch_first=True)

    def match(self, boxes: Tensor, valid: Tensor, threshold: float) -> Matches:
        """Matches boxes (B, N, 4) as training does at this threshold."""
        return Matcher(threshold, threshold, threshold)(boxes, valid, self.boxes, self.valid)

    def of(self, values: Tensor, match: Matches) -> Tensor:
        """(B, N) values (B, G) of the matched objects; 0 where the batch has none."""
        return values.gather(1, match.gt) if values.shape[1] else torch.zeros_like(match.gt)

    def boxes_of(self, match: Matches) -> Tensor:
        """(B, N, 4) boxes of the matched objects; zeros where the batch has none."""
        if not self.boxes.shape[1]:
            return self.boxes.new_zeros(*match.gt.shape, 4)
        return self.boxes.gather(1, match.gt[..., None].expand(-1, -1, 4))


def file_areas(batch: Batch) -> Tensor:
    """(T,) float32 area of each object's mask in square pixels of the image file.

    An image that was scaled on purpose counts as if its file had been; a part of one is taken for the whole.
    """
    sides = batch.windows[:, 2] * batch.windows[:, 3]
    stop = sides.cumsum(0)
    total = torch.cat([stop.new_zeros(1), batch.mask_pixels.cumsum(0, dtype=torch.int64)])
    sizes = zip(batch.sizes, batch.original_sizes, batch.counts, strict=True)
    scales = [size[0] * size[1] / (now[0] * now[1]) for now, size, count in sizes for _ in range(count)]
    scale = torch.tensor(scales, dtype=torch.float32).to(stop.device, non_blocking=True)
    return (total[stop] - total[stop - sides]) * scale


def _iou_of_pairs(boxes: Tensor, others: Tensor) -> Tensor:
    """(B, N) IoU of each box (B, N, 4) with the other one in its place."""
    return pairwise_iou(boxes[..., None, :], others[..., None, :])[..., 0, 0]


def _count(index: Tensor, counted: Tensor, size: int) -> Tensor:
    """(size,) int64: how many entries that count have each index."""
    return _count_rows(index, counted[..., None], size)[:, 0]


def _count_rows(index: Tensor, values: Tensor, size: int) -> Tensor:
    """(size, C) int64 sums of values (B, N, C) by index (B, N); unlike ``bincount`` it does not wait for the device."""
    sums = torch.zeros(size, values.shape[-1], dtype=torch.int64, device=values.device)
    return sums.index_add_(0, index.flatten(), values.flatten(0, 1).to(torch.int64))
