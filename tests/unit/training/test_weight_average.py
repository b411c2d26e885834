from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from r3cnn.training.weight_average import MovingAverage, WeightAverage


class Weights(nn.Module):
    """A parameter, a parameter of half precision, a buffer and a counter."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value, -2.0 * value]))
        self.short = nn.Parameter(torch.tensor([value], dtype=torch.bfloat16))
        self.register_buffer("mean", torch.tensor(value))
        self.register_buffer("batches", torch.tensor(int(value)))


def averages(decay: float, values: list[float]) -> list[dict[str, Tensor]]:
    """The average after each step of weights that are all ``values[step]``."""
    average, found = MovingAverage(Weights(0.0), decay), []
    for value in values:
        average.update_parameters(Weights(value))
        found.append({name: tensor.clone() for name, tensor in average.module.state_dict().items()})
    return found


def test_the_average_of_constant_weights_is_these_weights() -> None:
    expected = Weights(1.3).state_dict()
    for average in averages(0.9, [1.3] * 50):
        assert all(torch.equal(average[name], value) for name, value in expected.items())


def test_all_tensors_together_give_what_the_formula_gives_for_each() -> None:
    torch.manual_seed(0)
    values = [float(value) for value in torch.randn(40)]
    expected = {name: tensor.double() for name, tensor in Weights(values[0]).state_dict().items()}
    for steps, average in enumerate(averages(0.7, values)):
        share = min(0.7, (1 + steps) / (10 + steps)) if steps else 0.0
        current = Weights(values[steps]).state_dict()
        for name in ("weight", "mean", "short"):
            expected[name] = share * expected[name] + (1 - share) * current[name].double()
            atol = 0.05 if name == "short" else 1e-6
            torch.testing.assert_close(average[name].double(), expected[name], rtol=0, atol=atol)


def test_the_decay_rises_to_its_bound() -> None:
    average = MovingAverage(Weights(0.0), 0.9)
    shares = []
    for steps in (1, 11, 80, 800):
        average.module.load_state_dict(Weights(1.0).state_dict())
        average.n_averaged.fill_(steps)
        average.update_parameters(Weights(0.0))
        shares.append(average.module.state_dict()["mean"].item())
    assert shares == pytest.approx([2 / 11, 12 / 21, 0.9, 0.9])


def test_a_short_run_forgets_the_weights_that_it_started_from() -> None:
    assert float(averages(0.9998, [1.0] + [0.0] * 99)[-1]["mean"]) < 1e-6


def test_counters_are_not_averaged() -> None:
    assert [int(average["batches"]) for average in averages(0.5, [3.0, 8.0, 9.0])] == [3, 8, 9]


def test_a_step_reads_nothing_that_lies_on_the_device() -> None:
    """Tensors on ``meta`` have no values: what reads one of them, as an ``if`` or ``.item()`` does, raises."""
    average, weights = MovingAverage(Weights(0.0), 0.9), Weights(1.0).to("meta")
    average.move_to(torch.device("meta"))
    for _ in range(3):
        average.update_parameters(weights)
    assert average.n_averaged.device.type == "cpu"
    assert int(average.n_averaged) == 3
    assert {tensor.device.type for tensor in average.module.state_dict().values()} == {"meta"}


def test_the_average_shares_no_memory_with_the_weights() -> None:
    weights = Weights(1.0)
    average = MovingAverage(weights, 0.5)
    average.update_parameters(weights)
    with torch.no_grad():
        weights.weight.zero_()
    assert average.module.state_dict()["weight"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay must be in"):
        WeightAverage(decay)
