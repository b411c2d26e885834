"""Residual blocks with folded norms against torchvision's own, values and gradients, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from r3cnn.layers.residual import Residual, conv_norm


def with_statistics(module: nn.Module) -> nn.Module:
    """Norms as after a training: nothing about them is 0 or 1."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 2.0)
    return module.double().eval()


def shortcut() -> nn.Sequential:
    return nn.Sequential(conv1x1(16, 32, 2), nn.BatchNorm2d(32))


BLOCKS = {
    "bottleneck": lambda: Bottleneck(16, 4),
    "bottleneck with a downsampling shortcut": lambda: Bottleneck(16, 8, 2, shortcut()),
    "basic block": lambda: BasicBlock(16, 16),
    "basic block with a downsampling shortcut": lambda: BasicBlock(16, 32, 2, shortcut()),
}


def run(block: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    x = x.clone().requires_grad_()
    output = block(x)
    output.sin().sum().backward()
    return output, {"x": x.grad, **{name: p.grad for name, p in block.named_parameters()}}


@pytest.mark.parametrize("mode", ["fixed statistics", "live statistics"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_gives_the_values_and_gradients_of_torchvisions(kind: str, mode: str) -> None:
    theirs = with_statistics(BLOCKS[kind]()).train(mode == "live statistics")
    ours = Residual(copy.deepcopy(theirs)).train(theirs.training)
    x = torch.randn(2, 16, 6, 8, dtype=torch.float64)
    (expected, wanted), (output, gradients) = run(theirs, x), run(ours, x)
    torch.testing.assert_close(output, expected)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, msg=name)
    for name, buffer in theirs.named_buffers():
        assert torch.equal(ours.get_buffer(name), buffer), name


def test_a_fixed_norm_leaves_no_trace_of_its_input_for_the_gradient() -> None:
    conv, norm = nn.Conv2d(4, 8, 3, bias=False), with_statistics(nn.BatchNorm2d(8)).float()
    saved: list[tuple[int, ...]] = []
    x = torch.randn(2, 4, 10, 10, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(tuple(t.shape)) or t, lambda t: t):
        output = conv_norm(conv, norm, x)
        assert output.shape not in saved
        norm(conv(x))
    assert output.shape in saved


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 8), nn.BatchNorm2d(8, affine=False).eval(), nn.BatchNorm2d(8).train()]
)
def test_other_norms_run_as_they_are(norm: nn.Module) -> None:
    conv = nn.Conv2d(4, 8, 3, bias=False)
    x = torch.randn(2, 4, 10, 10)
    assert torch.equal(conv_norm(conv, copy.deepcopy(norm), x), norm(conv(x)))
