import json
import math

import pytest
import torch

from r3cnn.benchmarks.rows import Row
from r3cnn.benchmarks.timing import take_turns
from r3cnn.benchmarks.workload import Workload, draw_workload
from r3cnn.cli.bench import print_table

CPU = torch.device("cpu")


def workload(seed: int = 0, size: tuple[int, int] = (50, 70), objects: int = 5) -> Workload:
    return draw_workload(
        batch_size=2,
        size=size,
        objects=objects,
        num_classes=3,
        mean=(120.0, 120.0, 120.0),
        std=(60.0, 60.0, 60.0),
        seed=seed,
        device=CPU,
    )


def test_the_calls_take_turns_and_warm_ups_come_first() -> None:
    order: list[str] = []

    def call(name: str) -> float:
        order.append(name)
        return float(len(order))

    calls = {name: lambda name=name: call(name) for name in "ab"}
    measured = take_turns(calls, repetitions=2, warmups=1, device=CPU)
    assert order == ["a", "b"] * 3
    assert [measured[name].outcome for name in "ab"] == [5.0, 6.0]
    assert all(measurement.seconds >= 0 for measurement in measured.values())


def test_a_round_less_than_one_is_refused() -> None:
    with pytest.raises(ValueError, match="repetitions must be >= 1"):
        take_turns({"a": lambda: 0.0}, repetitions=0, warmups=0, device=CPU)


def test_a_row_tells_how_much_of_the_other_time_ours_is() -> None:
    row = Row("step", ours=3.0, peer=4.0, target=None, accept=False)
    assert row.to_dict() == {
        "name": "step",
        "ours": 3.0,
        "peer": 4.0,
        "ratio": 0.75,
        "unit": "s",
        "target": None,
        "accept": False,
    }


def test_the_same_seed_draws_the_same_batch_and_another_seed_another() -> None:
    first, again, other = workload(seed=1), workload(seed=1), workload(seed=2)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.targets[1].boxes, again.targets[1].boxes)
    assert not torch.equal(first.images, other.images)


def test_every_object_fills_its_box_inside_the_image() -> None:
    drawn = workload(objects=20)
    for target in drawn.targets:
        assert len(target) == 20
        assert 0 <= int(target.labels.min()) <= int(target.labels.max()) < 3
        for mask, box in zip(target.masks.to_dense(), target.boxes.tolist(), strict=True):
            rows, columns = mask.nonzero().unbind(dim=1)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert [float(edge) for edge in edges] == box
            assert box[2] <= 70
            assert box[3] <= 50


def test_outside_the_image_the_network_input_is_zero() -> None:
    normalized = workload().normalized()
    assert normalized.shape == (2, 3, 64, 96)
    assert math.isclose(float(normalized[:, :, 50:].abs().sum() + normalized[:, :, :, 70:].abs().sum()), 0.0)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="must be >= 1"):
        workload(objects=0)


def test_a_comparison_with_nothing_has_no_ratio(capsys):
    row = Row("growth", ours=1.5, peer=0.0, target=1.0, accept=True, unit="MB")
    assert row.ratio is None
    assert json.loads(json.dumps(row.to_dict(), allow_nan=False))["ratio"] is None
    print_table([row], {})
    assert "0.000 MB" in capsys.readouterr().out
