"""What is swept, and ranks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from r3cnn.benchmarks.cases import Case, Effort, Shape
from r3cnn.benchmarks.comparisons import Speed
from r3cnn.benchmarks.counts import Counts
from r3cnn.benchmarks.inference import TASK
from r3cnn.benchmarks.ranks import RankJob, seconds_by_ranks
from r3cnn.benchmarks.real_data import Endless
from r3cnn.benchmarks.scale import Point, Sweeps, points_of, sweep_rows
from r3cnn.benchmarks.workload import draw_workload
from r3cnn.data.samplers import Draw

SHAPE = Shape(1, (64, 96), 3, 80)
SWEEPS = Sweeps([(64, 96), (128, 96)], [1, 2], [8, 16], [1, 3], [80, 160], [], [])


def test_a_sweep_changes_one_thing_and_an_empty_one_is_left_out() -> None:
    points = points_of(SWEEPS, SHAPE)
    assert list(points) == ["pixels", "images", "RoIs", "loops", "classes"]
    assert points["pixels"][1] == Point(128 * 96, replace(SHAPE, image_size=(128, 96)))
    assert points["images"][1].shape == replace(SHAPE, batch_size=2)
    assert "rois_per_image=16" in points["RoIs"][1].overrides
    assert points["loops"][1].overrides[0] == "recursion.heads=[0, 0, 0]"
    assert points["classes"][1] == Point(160, replace(SHAPE, num_classes=160), ("num_classes=160",))


def test_the_last_row_of_a_sweep_has_the_exponents() -> None:
    points = [Point(size, SHAPE) for size in (1, 2, 4)]
    case = Case("fp32", SHAPE)
    found = [Speed(str(point.size), case, point.size**2, Counts(10 * point.size, 0), 0.0) for point in points]
    *each, last = sweep_rows(TASK, "images", points, found)
    assert [row.ratio for row in each] == [4.0, 16.0]
    assert last.ours == pytest.approx(2)
    assert last.peer == pytest.approx(1)


def test_files_make_full_batches_of_one_orientation_again_and_again() -> None:
    batches = iter(Endless([[0, 1, 2], [3, 4]], batch_size=2))
    assert [next(batches) for _ in range(3)] == [
        [Draw(0, 0), Draw(0, 1)],
        [Draw(0, 3), Draw(0, 4)],
        [Draw(1, 0), Draw(1, 1)],
    ]
    with pytest.raises(ValueError, match="fill no batch of 4"):
        Endless([[0, 1, 2], [3]], batch_size=4)


@pytest.mark.slow
def test_two_ranks_train_together_and_one_alone() -> None:
    channel = (120.0,) * 3
    settings = {"batch_size": 1, "size": (64, 96), "objects": 3, "num_classes": tiny.CLASSES, "seed": 0}
    workload = draw_workload(**settings, mean=channel, std=channel, device=torch.device("cpu"))
    case = Case("fp32", Shape(1, (64, 96), 3, tiny.CLASSES))
    effort = Effort(repetitions=1, warmups=0, candidates=50, seed=0)
    job = RankJob(tiny.model(tiny.schedule(), count=16), workload, case, effort, "cpu", threads=1)
    seconds = seconds_by_ranks(job, [1, 2])
    assert seconds.keys() == {1, 2}
    assert min(seconds.values()) > 0


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of"):
        Case("fp8", SHAPE)
