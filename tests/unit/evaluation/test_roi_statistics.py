"""Counts of RoIs on cases that can be checked by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed
from torch import multiprocessing as mp

from r3cnn.batch import Batch, Example
from r3cnn.evaluation.roi_report import balance, roi_report, roi_scalars
from r3cnn.evaluation.roi_statistics import BIN_EDGES, RoiStatistics, file_areas
from r3cnn.structures import InstanceMasks, LoopTrace, Rois, Size, Target

CANVAS = (128, 128)
CAT, DOG = [0.0, 0.0, 20.0, 20.0], [40.0, 40.0, 100.0, 100.0]  # small and, with 3600 square pixels, medium
Boxes = list[list[float]]


def batch_of(objects: Boxes, labels: list[int], *, crowds: Boxes | None = None, original_size: Size = CANVAS) -> Batch:
    """One image of 128 x 128 pixels."""
    masks = torch.zeros(len(objects), *CANVAS, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, objects, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = 1
    boxes, crowded = torch.tensor(objects).reshape(-1, 4), torch.tensor(crowds or []).reshape(-1, 4)
    target = Target(boxes, torch.tensor(labels, dtype=torch.int64), InstanceMasks.from_dense(masks), crowded)
    return Batch.of([Example(torch.zeros(3, *CANVAS, dtype=torch.uint8), target, 1, original_size)])


def rois_of(boxes: Boxes, *, empty: int = 0) -> Rois:
    """The boxes, and empty slots that hold a perfect box of the cat all the same."""
    slots = torch.tensor([*boxes, *[CAT] * empty]).reshape(1, -1, 4)
    return Rois(slots, torch.arange(slots.shape[1])[None] < len(boxes))


def trace(offered: Boxes, refined: Boxes | None = None, *, empty: int = 0) -> LoopTrace:
    rois = rois_of(offered, empty=empty)
    return LoopTrace(rois, rois, rois.boxes if refined is None else rois_of(refined, empty=empty).boxes)


def counted(batch: Batch, *traces: LoopTrace, thresholds: tuple[float, ...] = (0.5,)) -> RoiStatistics:
    statistics = RoiStatistics(2, thresholds, crowd_iof=0.5)
    statistics.update(batch, traces)
    return statistics


def test_rois_are_counted_by_their_best_iou_and_empty_slots_are_not() -> None:
    half, nothing = [0.0, 0.0, 20.0, 10.0], [110.0, 0.0, 120.0, 10.0]
    report = counted(batch_of([CAT, DOG], [0, 1]), trace([CAT, half, nothing], empty=3)).counts()
    expected = np.zeros(20, dtype=int)
    expected[[19, 10, 0]] = 1  # IoU 1, exactly 0.5, 0
    assert report["histogram"].tolist() == [expected.tolist()]
    assert int(report["images"]) == 1


def test_positives_and_negatives_belong_to_the_class_and_size_of_the_object_that_they_overlap_most() -> None:
    near_cat, near_dog, nothing = [0.0, 0.0, 20.0, 8.0], [40.0, 40.0, 100.0, 60.0], [110.0, 0.0, 120.0, 10.0]
    statistics = counted(batch_of([CAT, DOG], [0, 1]), trace([CAT, near_cat, near_dog, near_dog, nothing]))
    loop = roi_report(statistics.counts(), (0.5,), ("cat", "dog"))["loops"]["1"]
    assert loop["per_class"] == {"cat": {"positives": 1, "negatives": 1}, "dog": {"positives": 0, "negatives": 2}}
    assert [loop["per_size"][size]["negatives"] for size in ("small", "medium", "large")] == [1, 2, 0]
    assert (loop["rois"], loop["positives"], loop["negatives"], loop["background"]) == (5, 1, 4, 1)


def test_object_sizes_are_those_in_the_image_file() -> None:
    batch = batch_of([CAT, DOG], [0, 1], original_size=(384, 384))  # three times as high and wide as the input
    assert file_areas(batch).tolist() == [9 * 400.0, 9 * 3600.0]
    sizes = counted(batch, trace([CAT, DOG])).counts()["sizes"][0]
    assert sizes[:, 0].tolist() == [0, 1, 1]


def test_positives_per_image_are_told_by_size_as_curves_as_well() -> None:
    small, medium = [0.0, 0.0, 20.0, 16.0], [40.0, 40.0, 100.0, 95.0]
    statistics = counted(batch_of([CAT, DOG], [0, 1]), trace([small, CAT, medium]))
    found = roi_scalars(roi_report(statistics.counts(), (0.5,), ("cat", "dog")))
    assert {name: found[f"loop1/roi_positives_{name}"] for name in ("small", "medium", "large")} == {
        "small": 2.0,
        "medium": 1.0,
        "large": 0.0,
    }


def test_gain_is_measured_against_the_same_object_before_and_after() -> None:
    quarter, half = [0.0, 0.0, 20.0, 5.0], [0.0, 0.0, 20.0, 10.0]
    better, worse, jumped = (half, CAT), (CAT, half), (quarter, DOG)  # the last one leaves the cat for the dog
    before, after = zip(better, worse, jumped, strict=True)
    statistics = counted(batch_of([CAT, DOG], [0, 1]), trace([*before], [*after]))
    loop = roi_report(statistics.counts(), (0.5,), ("cat", "dog"))["loops"]["1"]
    assert loop["refined_positives"] == {"rois": 2, "mean_gain": 0.0, "share_worse": 0.5}
    by_iou = loop["refined_by_iou"]
    assert by_iou[10] == {"rois": 1, "mean_gain": 0.5, "share_worse": 0.0}
    assert by_iou[19] == {"rois": 1, "mean_gain": -0.5, "share_worse": 1.0}
    assert by_iou[5] == {"rois": 1, "mean_gain": -0.25, "share_worse": 1.0}
    assert by_iou[7] == {"rois": 0, "mean_gain": None, "share_worse": None}


def test_without_objects_everything_is_background() -> None:
    statistics = counted(batch_of([], []), trace([CAT, DOG]))
    loop = roi_report(statistics.counts(), (0.5,), ("cat", "dog"))["loops"]["1"]
    assert (loop["rois"], loop["positives"], loop["background"]) == (2, 0, 2)
    assert loop["refined_positives"]["rois"] == 0
    assert loop["balance"] is None
    assert math.isnan(roi_scalars(roi_report(statistics.counts(), (0.5,), ("cat", "dog")))["loop1/roi_iou_gain"])


def test_rois_in_a_crowd_are_neither_positive_nor_negative() -> None:
    near_cat = [0.0, 0.0, 20.0, 16.0]  # IoU 0.8, but three quarters of it are crowd
    batch = batch_of([CAT], [0], crowds=[DOG, [0.0, 0.0, 20.0, 12.0]])
    loop = roi_report(counted(batch, trace([CAT, DOG, near_cat])).counts(), (0.5,), ("cat", "dog"))["loops"]["1"]
    assert (loop["rois"], loop["ignored"], loop["positives"], loop["negatives"]) == (3, 3, 0, 0)
    assert sum(loop["histogram"]) == 0


def test_a_crowd_leaves_the_histogram_of_the_rois_outside_as_it_is() -> None:
    batch = batch_of([CAT], [0], crowds=[DOG])
    loop = roi_report(counted(batch, trace([CAT, DOG])).counts(), (0.5,), ("cat", "dog"))["loops"]["1"]
    assert (loop["rois"], loop["ignored"], loop["positives"], loop["negatives"]) == (2, 1, 1, 0)
    assert loop["histogram"] == [0] * 19 + [1]


sides = st.integers(1, 60)
boxes = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), sides, sides), min_size=1, max_size=12)


@settings(max_examples=60)
@given(boxes, boxes, st.sampled_from([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]))
def test_positives_are_the_bins_from_the_threshold_on_and_every_roi_is_counted_once(
    objects: list[tuple[int, ...]], rois: list[tuple[int, ...]], threshold: float
) -> None:
    truth = [[float(x), float(y), float(x + w), float(y + h)] for x, y, w, h in objects]
    offered = [[float(x), float(y), float(x + w), float(y + h)] for x, y, w, h in rois]
    batch = batch_of(truth, [number % 2 for number in range(len(truth))])
    counts = counted(batch, trace([*offered, *truth]), thresholds=(threshold,)).counts()
    loop = roi_report(counts, (threshold,), ("cat", "dog"))["loops"]["1"]
    first = round(threshold * 20)
    assert sum(loop["histogram"][first:]) == loop["positives"]
    assert loop["positives"] + loop["negatives"] == loop["rois"] == len(offered) + len(truth)
    assert sum(kinds["positives"] for kinds in loop["per_class"].values()) == loop["positives"]
    assert loop["positives"] >= len(truth)


def test_balance_is_one_for_an_even_spread_zero_for_one_bin_and_in_between_its_entropy() -> None:
    even, single, two = np.zeros(20, int), np.zeros(20, int), np.zeros(20, int)
    even[10:], single[12], two[[10, 15]] = 7, 5, 3
    even[:10] = single[3] = 99  # below the threshold, where it does not count
    assert balance(even, 0.5) == pytest.approx(1)
    assert balance(single, 0.5) == 0
    assert balance(two, 0.5) == pytest.approx(math.log(2) / math.log(10))
    assert balance(even, 0.7) == pytest.approx(1)
    assert balance(even, 0.72) == pytest.approx(1)  # the cut bin is left out: five remain
    assert balance(single, 0.7) is None
    assert balance(even, 0.95) is None


def test_the_balance_so_far_takes_the_loops_together_from_the_lowest_threshold() -> None:
    low, high = [0.0, 0.0, 20.0, 11.0], [0.0, 0.0, 20.0, 15.0]  # IoU .55 and .75
    statistics = counted(batch_of([CAT], [0]), trace([low]), trace([high]), thresholds=(0.5, 0.7))
    loops = roi_report(statistics.counts(), (0.5, 0.7), ("cat", "dog"))["loops"]
    assert [loop["balance"] for loop in loops.values()] == [0, 0]
    assert loops["1"]["balance_so_far"] == 0
    assert loops["2"]["balance_so_far"] == pytest.approx(math.log(2) / math.log(10))


def test_every_loop_needs_a_threshold() -> None:
    with pytest.raises(ValueError, match="2 loops ran, 1 have an IoU threshold"):
        counted(batch_of([CAT], [0]), trace([CAT]), trace([CAT]))
    with pytest.raises(ValueError, match="iou_thresholds is empty"):
        RoiStatistics(2, (), 0.5)


def network_counts(*, training: bool) -> tuple[RoiStatistics, list[LoopTrace], Batch]:
    """What a network with random weights does to two images."""
    model = tiny.model(tiny.schedule(), count=24).train(training)
    images, sizes = tiny.images(2)
    targets = [tiny.target(tiny.SOME), tiny.target([])]
    examples = [
        Example(torch.zeros(3, *size, dtype=torch.uint8), t, n, size)
        for n, (size, t) in enumerate(zip(sizes, targets, strict=True))
    ]
    seen: list[LoopTrace] = []
    if training:
        model.losses(images, sizes, targets, torch.Generator().manual_seed(0), seen.extend)
    else:
        seen.extend(model.inspect(images, sizes).traces)
    statistics = RoiStatistics(tiny.CLASSES, (0.5, 0.6, 0.7), 0.5)
    statistics.update(Batch.of(examples), seen)
    return statistics, seen, Batch.of(examples)


@pytest.mark.parametrize("training", [True, False])
def test_each_loop_is_offered_what_the_loop_before_made(training: bool) -> None:
    statistics, traces, _ = network_counts(training=training)
    assert len(traces) == 3
    for earlier, later in itertools.pairwise(traces):
        assert torch.equal(later.offered.boxes, earlier.refined)
        assert torch.equal(later.offered.valid, earlier.kept.valid)
    offered = [int(one.offered.valid.sum()) for one in traces]
    assert statistics.counts()["histogram"].sum(axis=1).tolist() == offered
    assert all(offered)


def test_the_histogram_is_that_of_the_best_ious_before_ground_truth_is_added() -> None:
    statistics, traces, batch = network_counts(training=True)
    for loop, one in enumerate(traces):
        boxes = one.offered.boxes[0][one.offered.valid[0]].double()
        truth = batch.boxes.double()  # all of the first image
        corner = torch.maximum(boxes[:, None, :2], truth[:, :2]), torch.minimum(boxes[:, None, 2:], truth[:, 2:])
        shared = (corner[1] - corner[0]).clamp(min=0).prod(dim=2)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)[:, None] + (truth[:, 2:] - truth[:, :2]).prod(dim=1)
        iou = (shared / (areas - shared)).amax(dim=1)
        expected = np.histogram(iou.numpy(), bins=BIN_EDGES)[0]
        expected[0] += int(one.offered.valid[1].sum())  # the second image has no object
        assert statistics.counts()["histogram"][loop].tolist() == expected.tolist()


def work(rank: int, folder: Path) -> None:
    """One of two processes: the first saw nothing, the second both images of the cases above."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    statistics = network_counts(training=False)[0] if rank else RoiStatistics(tiny.CLASSES, (0.5, 0.6, 0.7), 0.5)
    np.savez(folder / f"rank{rank}.npz", **statistics.counts())
    distributed.destroy_process_group()


def test_two_ranks_of_which_one_saw_nothing_both_know_all_counts_exactly(tmp_path: Path) -> None:
    mp.spawn(work, (tmp_path,), nprocs=2)
    expected = network_counts(training=False)[0].counts()
    for rank in range(2):
        found = np.load(tmp_path / f"rank{rank}.npz")
        assert all(np.array_equal(found[name], values) for name, values in expected.items())


def test_counting_makes_the_host_wait_for_nothing_but_one_small_constant() -> None:
    from test_invariants import CountReads

    _, traces, batch = network_counts(training=True)
    statistics = RoiStatistics(tiny.CLASSES, (0.5, 0.6, 0.7), 0.5)
    with CountReads() as counter:
        statistics.update(batch, traces)
    assert counter.count <= 1
