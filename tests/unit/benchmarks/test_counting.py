"""Counted operations and memory, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from r3cnn.benchmarks.counting import counted
from r3cnn.benchmarks.harness import CPU

FLOAT = 4  # bytes


def flops(call: Callable[[], float]) -> int:
    return counted(call, CPU)[0]


def peak_bytes(call: Callable[[], float]) -> int:
    return counted(call, CPU)[1]


def backward_of(*tensors: torch.Tensor) -> float:
    torch.stack([tensor.sum() for tensor in tensors]).sum().backward()
    return 0.0


def test_a_convolution_counts_two_operations_per_multiply_add_and_twice_as_many_backwards() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    images = torch.randn(2, 3, 8, 10, requires_grad=True)
    forward = 2 * (2 * 8 * 10) * 5 * (3 * 3 * 3)
    assert flops(lambda: float(conv(images).detach().sum())) == forward
    assert flops(lambda: backward_of(conv(images))) == 3 * forward


def test_a_frozen_input_saves_its_gradient() -> None:
    layer = nn.Linear(7, 5)
    rows = torch.randn(11, 7)
    assert flops(lambda: backward_of(layer(rows))) == 2 * (2 * 11 * 7 * 5)


def test_attention_on_the_cpu_counts_two_products_and_five_backwards() -> None:
    query = torch.randn(3, 49, 16, requires_grad=True)
    product = 2 * 3 * 49 * 49 * 16
    with torch.inference_mode():
        assert flops(lambda: float(F.scaled_dot_product_attention(query, query, query).sum())) == 2 * product
    assert flops(lambda: backward_of(F.scaled_dot_product_attention(query, query, query))) == 7 * product


def test_a_deformable_convolution_counts_as_the_plain_one() -> None:
    images, weight = torch.randn(2, 4, 8, 8, requires_grad=True), torch.randn(6, 4, 3, 3, requires_grad=True)
    offset = torch.randn(2, 18, 8, 8, requires_grad=True)
    forward = 2 * (2 * 8 * 8) * 6 * (4 * 3 * 3)
    assert flops(lambda: float(deform_conv2d(images, offset, weight, padding=1).detach().sum())) == forward
    assert flops(lambda: backward_of(deform_conv2d(images, offset, weight, padding=1))) == 3 * forward


def test_the_peak_is_what_lives_at_the_same_time() -> None:
    def call() -> float:
        first = torch.ones(1000)
        second = first + 1  # 2000 floats live
        del first
        both = torch.cat([second, second])  # 3000
        del second
        return float(both.sum())

    assert peak_bytes(call) == 3000 * FLOAT


def test_what_a_call_only_uses_counts_from_the_beginning() -> None:
    used, unused = torch.ones(500), torch.ones(10_000)

    def call() -> float:
        first = torch.ones(1000)
        del first
        return float((used * 2).sum())

    assert peak_bytes(call) == (500 + 1000) * FLOAT
    assert len(unused) == 10_000


def test_a_view_takes_no_memory() -> None:
    assert peak_bytes(lambda: float(torch.ones(1000).view(10, 100)[:, :50].t()[0, 0])) == 1000 * FLOAT


def test_a_training_step_holds_weights_input_what_backward_needs_and_gradients() -> None:
    layer = nn.Linear(100, 100, bias=False)
    rows = torch.ones(10, 100)

    def step() -> float:
        outcome = backward_of(layer(rows))
        layer.weight.grad = None
        return outcome

    weight, gradient, rows_floats, gradient_of_output, sums = 100 * 100, 100 * 100, 10 * 100, 10 * 100, 2
    assert peak_bytes(step) == (weight + gradient + rows_floats + gradient_of_output + sums) * FLOAT


@pytest.mark.parametrize("size", [10, 20])
def test_operations_and_memory_are_counted_in_one_call(size: int) -> None:
    calls = []

    def call() -> float:
        calls.append(size)
        matrix = torch.ones(size, size)
        return float((matrix @ matrix)[0, 0])

    assert counted(call, CPU) == (2 * size**3, 2 * size**2 * FLOAT)
    assert len(calls) == 1
