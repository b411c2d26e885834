"""Reduced precision: layers run in it, boxes, coder, NMS and losses do not."""

from __future__ import annotations

import pytest
import tiny
import torch


def test_bfloat16_autocast_keeps_losses_in_float32_and_near_the_plain_ones() -> None:
    model = tiny.model(tiny.schedule()).train()
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


def test_bfloat16_autocast_detects_with_float32_boxes_scores_and_masks() -> None:
    model = tiny.model(tiny.schedule())
    images, sizes = tiny.images(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.detect(images, sizes)[0]
    assert len(found) > 0
    assert {found.boxes.dtype, found.scores.dtype, found.masks.dtype} == {torch.float32}
