"""On a GPU everything is what it is on a CPU, and the host seldom waits."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from r3cnn.detector import RCNN, BackwardOrder
from r3cnn.layers.deformable import DeformableConv2d
from r3cnn.ops.sampling import BalancedSampler
from r3cnn.structures import Target

CUDA = torch.device("cuda")
ROUNDING = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(autouse=True)
def exact_convolutions() -> Any:
    """No TF32, which keeps 10 bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def targets_on(device: torch.device, boxes: list[list[list[float]]]) -> list[Target]:
    return [tiny.target(each).to(device) for each in boxes]


def losses_on(
    device: torch.device, backward: BackwardOrder, *, is_advanced: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients of one step in which nothing is sampled away, so that no random number decides."""
    model = tiny.model(tiny.schedule(), is_advanced=is_advanced).train().to(device)
    model.rpn.sampler = BalancedSampler(100_000, 1.0)
    images, sizes = tiny.images(2)
    targets = targets_on(device, [tiny.SOME, tiny.SOME[:1]])
    total, losses = model.total_loss(images.to(device), sizes, targets, backward=backward)
    total.backward()
    found = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return {name: loss.cpu() for name, loss in losses.items()}, found


@pytest.mark.parametrize("is_advanced", [False, True])
@pytest.mark.parametrize("backward", ["at_once", "by_loop"])
def test_losses_and_gradients_are_those_of_the_cpu(backward: BackwardOrder, is_advanced: bool) -> None:
    losses, gradients = losses_on(torch.device("cpu"), "at_once", is_advanced=is_advanced)
    own_losses, own_gradients = losses_on(CUDA, backward, is_advanced=is_advanced)
    for name, loss in losses.items():
        torch.testing.assert_close(own_losses[name], loss, **ROUNDING, msg=name)
    for name, gradient in gradients.items():
        atol = 1e-3 * max(1e-2, float(gradient.abs().max()))
        torch.testing.assert_close(own_gradients[name], gradient, rtol=1e-2, atol=atol, msg=name)


def test_detections_are_those_of_the_cpu() -> None:
    model = tiny.model(tiny.schedule())
    images, sizes = tiny.images(2)
    expected = model.detect(images, sizes)
    found = model.to(CUDA).detect(images.to(CUDA), sizes)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(theirs) > 0
        assert torch.equal(ours.labels.cpu(), theirs.labels)
        torch.testing.assert_close(ours.boxes.cpu(), theirs.boxes, rtol=0, atol=0.02)
        torch.testing.assert_close(ours.masks.cpu(), theirs.masks, rtol=0, atol=0.01)


def test_deformable_convolution_is_that_of_the_cpu() -> None:
    torch.manual_seed(0)
    layer = DeformableConv2d(torch.nn.Conv2d(8, 8, 3, padding=1, bias=False))
    torch.nn.init.normal_(layer.offset.weight, std=0.1)
    x = torch.randn(2, 8, 9, 11)
    expected = layer(x)
    torch.testing.assert_close(layer.to(CUDA)(x.to(CUDA)).cpu(), expected, **ROUNDING)


def waits(model: RCNN, boxes: list[list[list[float]]]) -> int:
    """How often the host waits for the device in a step, as CUDA itself notices it."""
    images, sizes = tiny.images(len(boxes))
    images, targets = images.to(CUDA), targets_on(CUDA, boxes)
    generator = torch.Generator(CUDA).manual_seed(0)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            total, _ = model.total_loss(images, sizes, targets, generator)
            total.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(one.message) for one in seen)


def test_the_host_waits_equally_often_whatever_the_objects_and_the_loops() -> None:
    counts = {}
    for loops in (1, 3):
        model = tiny.model(tiny.schedule((0,) * loops), count=24).train().to(CUDA)
        for objects in (0, 1, 3):
            counts[loops, objects] = waits(model, [tiny.SOME[:objects], tiny.SOME[:objects]])
    assert len(set(counts.values())) == 1, counts
    assert max(counts.values()) < 10, counts


@pytest.mark.parametrize("backward", ["at_once", "by_loop"])
def test_a_step_in_bfloat16_is_finite_and_reaches_every_part(backward: BackwardOrder) -> None:
    model = tiny.model(tiny.schedule(), count=24).train().to(CUDA)
    images, sizes = tiny.images(2)
    with torch.autocast("cuda", torch.bfloat16):
        total, _ = model.total_loss(
            images.to(CUDA), sizes, targets_on(CUDA, [tiny.SOME, []]), torch.Generator(CUDA), backward=backward
        )
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert float(model.backbone.conv1.weight.grad.abs().max()) > 0
