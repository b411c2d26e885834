"""Optional modes of inference: nothing changes without them, and with them little."""

from __future__ import annotations

from functools import partial

import pytest
import tiny
import torch

from r3cnn.detector import RCNN
from r3cnn.inference_modes import InferenceModes, compile_network, device_of
from r3cnn.ops.views import views_of
from r3cnn.roi.early_exit import EarlyExit
from r3cnn.structures import Detections


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "cpu:x", "-1", "meta"])
def test_a_device_that_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"device is '{name}': auto, or a device of this machine, is needed"):
        device_of(name)


def assert_near(plain: list[Detections], other: list[Detections]) -> None:
    for a, b in zip(plain, other, strict=True):
        assert len(a) > 0
        for name in ("boxes", "scores", "labels", "masks", "mask_scores"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-3, atol=1e-3)


def with_modes(modes: InferenceModes, *, is_advanced: bool = False) -> RCNN:
    network = tiny.model(tiny.schedule(), is_advanced=is_advanced)
    modes.apply(network)
    return network


def test_bf16_is_what_autocast_gives_and_no_modes_leave_an_autocast_alone() -> None:
    images, sizes = tiny.images(2)
    in_bf16, plain = with_modes(InferenceModes(precision="bf16")), with_modes(InferenceModes())
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain.detect(images, sizes)
    found = in_bf16.detect(images, sizes)
    for a, b in zip(found, expected, strict=True):
        assert len(a) > 0
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.masks, b.masks)
    assert not torch.equal(found[0].scores, plain.detect(images, sizes)[0].scores)
    assert in_bf16.features(images)[0].dtype == torch.float32  # of no use to training


@pytest.mark.parametrize("is_advanced", [False, True])
def test_in_bf16_only_layers_compute_in_bfloat16(is_advanced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Box decoding, NMS and the fusion of scores see float32 in every loop and view."""
    from r3cnn.ops import fusion
    from r3cnn.roi import heads, inference
    from r3cnn.rpn import rpn

    seen: dict[str, set[torch.dtype]] = {}

    def watch(module: object, name: str) -> None:
        original = getattr(module, name)

        def call(*args: object, **others: object) -> object:
            found = original(*args, **others)
            tensors = [value for value in (*args, found) if isinstance(value, torch.Tensor)]
            seen.setdefault(name, set()).update(value.dtype for value in tensors if value.is_floating_point())
            return found

        monkeypatch.setattr(module, name, call)

    for module in (heads, rpn):
        watch(module, "decode_boxes")
        watch(module, "clip_boxes")
    for module in (inference, rpn):
        watch(module, "nms_mask")
    watch(fusion, "_fuse_logits")
    rule = EarlyExit(background_above=0.5, score_change=0.1, box_iou=0.5)
    network = with_modes(InferenceModes(rule, "bf16"), is_advanced=is_advanced)
    found = network.inspect(*tiny.images(1), views_of([1.0], flip=True)).detections[-1][0]
    assert len(found) > 0
    assert seen == {name: {torch.float32} for name in ("decode_boxes", "clip_boxes", "nms_mask", "_fuse_logits")}


@pytest.mark.parametrize("is_advanced", [False, True])
def test_a_compiled_network_keeps_its_weights_and_finds_the_same(
    is_advanced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a compiler that traces the graphs and runs them as they are."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain = with_modes(InferenceModes(), is_advanced=is_advanced)
    compiled = with_modes(InferenceModes(compile=True), is_advanced=is_advanced)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for seed in (0, 1):
        images, sizes = tiny.images(2, seed=seed)
        assert_near(plain.detect(images, sizes), compiled.detect(images, sizes))


def test_a_compiled_network_trains_on_the_same_losses_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    images, sizes = tiny.images(2)
    targets = [tiny.target(tiny.SOME), tiny.target(tiny.SOME[:1])]
    found = []
    for is_compiled in (False, True):
        network = tiny.model(tiny.schedule(), count=24, static=True).train()
        if is_compiled:
            compile_network(network)
        total, losses = network.total_loss(images, sizes, targets, torch.Generator().manual_seed(0))
        total.backward()
        found.append((losses, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}))
    (losses, gradients), (own_losses, own_gradients) = found
    for name, loss in losses.items():
        torch.testing.assert_close(own_losses[name], loss, rtol=1e-5, atol=1e-6, msg=name)
    assert gradients.keys() == own_gradients.keys()
    for name, gradient in gradients.items():
        rounding = 1e-5 * max(1e-3, float(gradient.abs().max()))
        torch.testing.assert_close(own_gradients[name], gradient, rtol=1e-3, atol=rounding, msg=name)


def test_all_modes_together_find_something_and_the_rois_that_stay_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    rule = EarlyExit(background_above=1.0, score_change=0.1, box_iou=0.5)
    network = with_modes(InferenceModes(rule, "bf16", True))
    counts: list[int] = []
    network.roi_heads.box_extractor.register_forward_pre_hook(lambda _, given: counts.append(len(given[1].boxes)))
    assert len(network.detect(*tiny.images(2))[0]) > 0
    assert counts[0] == counts[1] > counts[2]


def test_without_a_compiler_the_network_runs_as_it_is_and_the_reason_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand a long trace")

    monkeypatch.setattr(torch, "compile", refuse)
    network = with_modes(InferenceModes(compile=True))
    assert "compile=true has no effect, the network runs as it is: InvalidCxxCompiler: No working" in caplog.text
    assert "long trace" not in caplog.text
    assert_near(with_modes(InferenceModes()).detect(*tiny.images(1)), network.detect(*tiny.images(1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp8"}, r"precision must be one of \('float32', 'bf16'\), got 'fp8'"),
        ({"early_exit": 0.5}, r"early_exit must be a StayInLoops or an EarlyExit, got 0\.5"),
    ],
)
def test_a_mode_that_there_is_not_is_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InferenceModes(**settings)
