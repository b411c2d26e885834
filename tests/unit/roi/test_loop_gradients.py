"""Gradients made loop by loop against those of one backward pass over all loops."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor

from r3cnn.detector import RCNN, BackwardOrder
from r3cnn.training.module import TrainingSettings

KINDS = {
    "R3-CNN": (tiny.schedule(), False),
    "trained feedback": (tiny.schedule(mask_feedback="trained"), False),
    "Mask R-CNN": (tiny.schedule((0,), interleaved=False), False),
    "cascade": (tiny.schedule((0, 1, 2)), False),
    "advanced": (tiny.schedule(), True),
}


def step(
    model: RCNN, backward: BackwardOrder, boxes: list[list[float]], *, is_bfloat16: bool = False
) -> tuple[Tensor, dict[str, Tensor], dict]:
    """The total, the losses and all gradients of one training step; every parameter that has one in both ways."""
    images, sizes = tiny.images(2)
    targets = [tiny.target(boxes), tiny.target(boxes[:1])]
    generator = torch.Generator().manual_seed(0)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
        total, losses = model.total_loss(images, sizes, targets, generator, backward=backward)
    (3 * total).backward()  # outside, as Lightning does
    return total.detach(), losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("boxes", [tiny.SOME, []], ids=["some objects", "no object"])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_the_same_to_the_bit_and_gradients_up_to_the_rounding_of_sums(
    kind: str, boxes: list[list[float]]
) -> None:
    schedule, is_advanced = KINDS[kind]
    model = tiny.model(schedule, count=24, is_advanced=is_advanced).train()
    total, losses, gradients = step(model, "at_once", boxes)
    own_total, own_losses, own_gradients = step(model, "by_loop", boxes)
    assert losses.keys() == own_losses.keys() == model.loss_weights().keys()
    assert all(torch.equal(loss, own_losses[name]) for name, loss in losses.items())
    torch.testing.assert_close(own_total, total)
    assert gradients.keys() == own_gradients.keys()
    for name, gradient in gradients.items():
        rounding = 1e-5 * max(1e-3, float(gradient.abs().max()))
        torch.testing.assert_close(own_gradients[name], gradient, rtol=1e-4, atol=rounding, msg=name)
    assert not any(loss.requires_grad for loss in own_losses.values())


def test_frozen_features_and_heads_get_no_gradient() -> None:
    model = tiny.model(tiny.schedule(), count=24).train()
    model.backbone.requires_grad_(False)
    model.fpn.requires_grad_(False)
    model.roi_heads.box_heads.requires_grad_(False)
    _, _, gradients = step(model, "by_loop", tiny.SOME)
    assert gradients
    assert {name.split(".")[0] for name in gradients} == {"rpn", "roi_heads"}
    assert not any(name.startswith("roi_heads.box_heads") for name in gradients)


def test_the_proposal_network_can_learn_alone() -> None:
    model = tiny.model(tiny.schedule(), count=24).train()
    for part in (model.backbone, model.fpn, model.roi_heads):
        part.requires_grad_(False)
    _, _, gradients = step(model, "by_loop", tiny.SOME)
    assert {name.split(".")[0] for name in gradients} == {"rpn"}


@pytest.mark.parametrize("is_advanced", [False, True])
def test_bfloat16_autocast_gives_the_same_gradients_both_ways(*, is_advanced: bool) -> None:
    """Bfloat16 itself moves these gradients by 4 to 39 % in their norm; the ways differ by less."""
    model = tiny.model(tiny.schedule(), count=24, is_advanced=is_advanced).train()
    found = [step(model, backward, tiny.SOME, is_bfloat16=True)[2] for backward in ("at_once", "by_loop")]
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        difference = float((found[1][name] - gradient).norm())
        assert difference <= 0.08 * float(gradient.norm()), name


def test_no_backward_pass_runs_under_the_autocast_of_the_step() -> None:
    model = tiny.model(tiny.schedule(), count=24).train()
    seen: list[bool] = []
    for parameter in model.roi_heads.parameters():
        parameter.register_hook(lambda _: seen.append(torch.is_autocast_enabled("cpu")))
    step(model, "by_loop", tiny.SOME, is_bfloat16=True)
    assert seen
    assert not any(seen)


class Saved:
    """A tensor that is kept for the backward pass, and how many bytes are at a time."""

    alive = largest = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        Saved.alive += tensor.nbytes
        Saved.largest = max(Saved.largest, Saved.alive)

    def __del__(self) -> None:
        Saved.alive -= self.tensor.nbytes


def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_loops() -> None:
    largest = {}
    for loops in (1, 3):
        for backward in ("at_once", "by_loop"):
            model = tiny.model(tiny.schedule((0,) * loops), count=24).train()
            Saved.alive = Saved.largest = 0
            with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
                step(model, backward, tiny.SOME)
            largest[loops, backward] = Saved.largest
    growth = largest[3, "at_once"] - largest[1, "at_once"]
    assert growth > 1e6
    assert (
        largest[3, "by_loop"] - largest[1, "by_loop"] < 0.2 * growth
    )  # later loops have more positives than the first


def test_an_unknown_order_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"backward must be one of .*, got .later."):
        TrainingSettings(None, None, 1, 0, "later")  # type: ignore[arg-type]
