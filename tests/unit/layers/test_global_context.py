"""The global context block against its formula, and where it sits in a bottleneck."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.resnet import BasicBlock, Bottleneck

from r3cnn.layers.global_context import GlobalContext, add_context


def bottleneck() -> Bottleneck:
    torch.manual_seed(0)
    return Bottleneck(16, 4).eval()


def basic_block() -> BasicBlock:
    torch.manual_seed(0)
    return BasicBlock(16, 16).eval()


BLOCKS = {"bottleneck": bottleneck, "basic_block": basic_block}


@torch.no_grad()
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_block_with_a_new_context_block_computes_what_it_did_before(kind: str) -> None:
    x = torch.randn(2, 16, 5, 7, dtype=torch.float64)
    plain = BLOCKS[kind]().double()
    expected = plain(x)
    torch.testing.assert_close(add_context(plain, 0.25).double()(x), expected)


@pytest.mark.parametrize("kind", BLOCKS)
def test_layers_that_were_there_keep_their_names_and_weights(kind: str) -> None:
    before = BLOCKS[kind]().state_dict()
    after = add_context(BLOCKS[kind](), 0.25).state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"context"}


@torch.no_grad()
def test_one_vector_per_image_is_pooled_by_attention_and_added_everywhere() -> None:
    torch.manual_seed(0)
    block = GlobalContext(8, 0.5)
    torch.nn.init.normal_(block.expand.weight)
    x = torch.randn(2, 8, 3, 4)
    difference = block(x) - x
    assert torch.allclose(difference, difference[:, :, :1, :1].expand_as(difference), atol=1e-6)
    weights = block.mask(x).flatten(1).softmax(1)  # (2, 12)
    pooled = (x.flatten(2) * weights[:, None]).sum(2)[..., None, None]
    hidden = block.reduce(pooled)
    mean, var = hidden.mean((1, 2, 3), keepdim=True), hidden.var((1, 2, 3), keepdim=True, unbiased=False)
    expected = block.expand(((hidden - mean) / (var + block.norm.eps).sqrt()).relu())
    torch.testing.assert_close(difference[:, :, :1, :1], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("kind", BLOCKS)
def test_the_context_is_added_before_the_shortcut(kind: str) -> None:
    block = add_context(BLOCKS[kind](), 0.25)
    torch.nn.init.constant_(block.context.expand.bias, 100.0)
    assert float(block(torch.randn(1, 16, 4, 4)).min()) > 90


@pytest.mark.parametrize("ratio", [0.0, 0.01, 2.0])
def test_a_ratio_that_leaves_no_or_too_many_channels_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio must"):
        GlobalContext(8, ratio)
