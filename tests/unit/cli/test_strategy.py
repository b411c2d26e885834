"""How several ranks send their gradients."""

from __future__ import annotations

import pytest
from lightning.pytorch.strategies import DDPStrategy

from r3cnn.cli.parts import num_devices, strategy_of


def settings(**changes: object) -> dict[str, object]:
    plain = {"strategy": "auto", "devices": 2, "num_nodes": 1, "accelerator": "cpu", "accumulate_grad_batches": 1}
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("devices", "count"), [(1, 1), (2, 2), ("4", 4), ([0, 1, 3], 3), ("0,2", 2), ("auto", 1), (-1, 1)]
)
def test_devices_are_counted_however_they_are_written(devices: object, count: int) -> None:
    assert num_devices(settings(devices=devices)) == count


@pytest.mark.parametrize("changes", [{"devices": 1}, {"devices": "auto"}, {"strategy": "fsdp"}])
def test_one_rank_and_other_strategies_are_left_alone(changes: dict[str, object]) -> None:
    assert strategy_of(settings(**changes)) == changes.get("strategy", "auto")


@pytest.mark.parametrize(("changes", "static"), [({}, True), ({"accumulate_grad_batches": 4}, False)])
def test_several_ranks_keep_gradients_in_the_buckets_that_are_sent(changes: dict[str, object], static: bool) -> None:
    strategy = strategy_of(settings(**changes))
    assert isinstance(strategy, DDPStrategy)
    assert strategy._ddp_kwargs == {"gradient_as_bucket_view": True, "static_graph": static}
    assert isinstance(strategy_of(settings(devices=1, num_nodes=2)), DDPStrategy)
