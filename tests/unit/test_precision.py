"""Reduced precision: layers run in it, boxes, coder, NMS and losses do not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import tiny
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck

from r3cnn.layers.deformable import deform_block
from r3cnn.layers.global_context import add_context


@pytest.mark.parametrize("is_advanced", [False, True])
def test_bfloat16_autocast_keeps_losses_in_float32_and_near_the_plain_ones(is_advanced: bool) -> None:
    model = tiny.model(tiny.schedule(), is_advanced=is_advanced).train()
    images, sizes = tiny.images(2)
    targets = [tiny.target(tiny.SOME), tiny.target(tiny.SOME[:1])]
    plain = model.losses(images, sizes, targets, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.features(images)[0].dtype == torch.bfloat16
        losses = model.losses(images, sizes, targets, torch.Generator().manual_seed(0))
    torch.stack(list(losses.values())).sum().backward()
    for key, value in losses.items():
        assert value.dtype == torch.float32, key
        assert bool(torch.isfinite(value)), key
    assert losses["rpn/objectness"].item() == pytest.approx(plain["rpn/objectness"].item(), rel=0.02)
    assert losses["loop1/cls"].item() == pytest.approx(plain["loop1/cls"].item(), rel=0.2)


@pytest.mark.parametrize("is_advanced", [False, True])
def test_bfloat16_autocast_detects_with_float32_boxes_scores_and_masks(is_advanced: bool) -> None:
    model = tiny.model(tiny.schedule(), is_advanced=is_advanced)
    images, sizes = tiny.images(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.detect(images, sizes)[0]
    assert len(found) > 0
    assert {found.boxes.dtype, found.scores.dtype, found.masks.dtype, found.mask_scores.dtype} == {torch.float32}


@pytest.mark.parametrize("change", [deform_block, partial(add_context, ratio=0.25)])
def test_changed_bottlenecks_run_under_bfloat16_autocast_and_learn(change: Callable[[Bottleneck], nn.Module]) -> None:
    block = change(Bottleneck(32, 8))
    with torch.autocast("cpu", torch.bfloat16):
        out = block(torch.randn(1, 32, 8, 8))
        out.float().pow(2).sum().backward()
    gradients = [parameter.grad for parameter in block.parameters() if parameter.grad is not None]
    assert len(gradients) >= 9
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
