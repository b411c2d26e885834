"""The non-local block against its formula, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from r3cnn.layers.non_local import NonLocal


@torch.no_grad()
def spread(block: torch.nn.Module) -> torch.nn.Module:
    """Weights with which attention is neither even nor one-hot and no path is switched off."""
    torch.manual_seed(0)
    for parameter in block.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)
    return block


def test_the_block_is_the_identity_at_first() -> None:
    x = torch.randn(2, 8, 7, 7)
    assert torch.equal(NonLocal(8, reduction=2, kernel_size=7)(x), x)


@torch.no_grad()
def test_every_position_is_mixed_from_all_positions_by_scaled_dot_products() -> None:
    block = spread(NonLocal(4, reduction=2, kernel_size=3))
    x = torch.randn(2, 4, 3, 5)
    theta, phi, g = block.theta(x).flatten(2), block.phi(x).flatten(2), block.g(x).flatten(2)  # (N, 2, 15)
    mixed = torch.zeros(2, 2, 15)
    for image in range(2):
        for here in range(15):
            weights = torch.stack([theta[image, :, here] @ phi[image, :, there] for there in range(15)]) / 2**0.5
            mixed[image, :, here] = g[image] @ weights.softmax(0)
    torch.testing.assert_close(block(x), x + block.out(mixed.view(2, 2, 3, 5)), rtol=1e-5, atol=1e-5)


class Operators(TorchDispatchMode):
    """Takes down the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_attention_is_one_fused_operator(memory_format: torch.memory_format) -> None:
    with Operators() as operators:
        NonLocal(8, reduction=2, kernel_size=7)(torch.randn(2, 8, 7, 7).contiguous(memory_format=memory_format))
    assert "_scaled_dot_product_flash_attention_for_cpu" in operators.names
    assert "bmm" not in operators.names


def test_no_roi_gives_no_map() -> None:
    assert NonLocal(8, reduction=2, kernel_size=7)(torch.zeros(0, 8, 7, 7)).shape == (0, 8, 7, 7)


@pytest.mark.parametrize(("channels", "kernel_size"), [(3, 7), (4, 2)])
def test_sizes_that_cannot_work_are_refused(channels: int, kernel_size: int) -> None:
    with pytest.raises(ValueError, match="reduction must divide the channels"):
        NonLocal(channels, reduction=2, kernel_size=kernel_size)
