"""Counted floating-point operations: two for every multiply-add of convolutions, matrix products and attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    conv_flop_count,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

Sizes = Sequence[int]


def flop_counter() -> FlopCounterMode:
    """A counter that also knows attention on the CPU and deformable convolutions; RoIAlign's sampling counts nothing.

    Operations inside a graph that ``torch.compile`` made are not seen.
    """
    return FlopCounterMode(
        display=False,
        custom_mapping={
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
            torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
            torch.ops.torchvision.deform_conv2d: deformable_flops,
            torch.ops.torchvision._deform_conv2d_backward: deformable_backward_flops,
        },
    )


def attention_flops(query: Sizes, key: Sizes, value: Sizes, *_: object, out_shape: object, **__: object) -> int:
    """Two products, of queries with keys and of weights with values."""
    return sdpa_flop_count(query, key, value)


def attention_backward_flops(
    grad: Sizes, query: Sizes, key: Sizes, value: Sizes, *_: object, out_shape: object, **__: object
) -> int:
    """Five products, one of them the recomputed first one."""
    return sdpa_backward_flop_count(grad, query, key, value)


def deformable_flops(images: Sizes, weight: Sizes, *_: object, out_shape: Sizes, **__: object) -> int:
    """Those of the plain convolution; sampling at the offsets counts nothing."""
    return conv_flop_count(list(images), list(weight), list(out_shape), transposed=False)


def deformable_backward_flops(grad: Sizes, images: Sizes, weight: Sizes, *_: object, **__: object) -> int:
    """As much again for the gradient of the input, and for that of the weight."""
    return 2 * 2 * grad[0] * prod(grad[2:]) * prod(weight)


def counted_flops(call: Callable[[], float]) -> int:
    """Floating-point operations of a call, forward and backward."""
    with flop_counter() as counter:
        call()
    return int(counter.get_total_flops())
