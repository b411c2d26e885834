"""Networks of timm as backbones."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from torch import nn

from r3cnn.backbones import TimmBackbone


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnext_atto", {}),
        ("resnet18", {}),
        ("mobilenetv3_small_100", {}),
        ("regnetx_002", {}),
        ("swinv2_cr_tiny_ns_224", {"img_size": (64, 96), "embed_dim": 24, "depths": (1, 1, 1, 1)}),
    ],
)
def test_the_four_maps_have_the_strides_and_channels_that_are_declared(name: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = TimmBackbone(name, pretrained=False, options=options).eval()
    with torch.no_grad():
        features = model(torch.randn(2, 3, 64, 96))
    expected = [(2, width, 64 // s, 96 // s) for width, s in zip(model.out_channels, (4, 8, 16, 32), strict=True)]
    assert [tuple(feature.shape) for feature in features] == expected


def test_maps_with_channels_last_come_out_with_channels_first() -> None:
    model = TimmBackbone(
        "swin_tiny_patch4_window7_224",
        pretrained=False,
        options={"embed_dim": 24, "depths": (1, 1, 1, 1)},
    ).eval()
    images = torch.randn(1, 3, 64, 96)  # not the size that the network was made for
    with torch.no_grad():
        raw, features = model.net(images), model(images)
    assert raw[0].shape == (1, 16, 24, 24)
    assert features[0].shape == (1, 24, 16, 24)
    assert torch.equal(raw[0][0, 3, 7], features[0][0, :, 3, 7])


def test_given_indices_are_used_if_their_strides_fit() -> None:
    assert TimmBackbone("resnet18", False, out_indices=[1, 2, 3, 4]).out_channels == (64, 128, 256, 512)
    with pytest.raises(ValueError, match=r"strides \[2, 4, 8, 16\].*needs \[4, 8, 16, 32\]"):
        TimmBackbone("resnet18", False, out_indices=[0, 1, 2, 3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vit_tiny_patch16_224"}, r"strides \[16.*convnext, swin"),
        ({"name": "convnext_tini"}, r"no network 'convnext_tini'; it has e\.g\. \['.*convnext"),
        ({"name": "hf-hub:someone/something"}, "no network"),
        ({"name": "resnet18", "options": {"colour": "red"}}, "cannot build resnet18.*colour"),
        ({"name": "resnet18", "options": {"checkpoint_path": "weights.pth"}}, r"holds \['checkpoint_path'\]"),
        ({"name": "resnet18", "frozen": ["stem"]}, "starts with 'stem'.*conv1"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused_with_a_reason(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimmBackbone(**{"pretrained": False, **settings})


def test_without_timm_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # what an import of a missing package comes to
    with pytest.raises(ValueError, match=r"pip install 'r3cnn\[timm\]'"):
        TimmBackbone("resnet18", False)


def test_frozen_parameters_are_not_trained_and_fixed_statistics_stay() -> None:
    model = TimmBackbone("resnet18", False, frozen=["conv1", "bn1", "layer1"]).train()
    names = {name.split(".")[1] for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert names == {"conv1", "bn1", "layer1"}
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [layer.running_mean.clone() for layer in norms]
    model(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(a, layer.running_mean) for a, layer in zip(before, norms, strict=True))
    moving = TimmBackbone("resnet18", False, fixed_statistics=False).train()
    moving(torch.randn(2, 3, 64, 64))
    assert any(
        float(layer.running_mean.abs().max()) > 0 for layer in moving.modules() if hasattr(layer, "running_mean")
    )


def test_weights_that_cannot_be_fetched_are_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TimmBackbone("resnet18", pretrained=True)

    def offline(*_: object) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(model, "_create", offline)
    with pytest.raises(RuntimeError, match=r"no route to host.*backbone\.pretrained=false"):
        model.fetch_weights()


def test_fetched_weights_replace_those_that_the_network_was_built_with(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, source = TimmBackbone("resnet18", pretrained=True), TimmBackbone("resnet18", pretrained=False)
    source.net.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    monkeypatch.setattr(model, "_create", lambda *_: source.net)
    with caplog.at_level(logging.WARNING):
        model.fetch_weights()
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True)
    )
    assert "data.mean=[127.5, 127.5, 127.5]" in caplog.text


def test_nothing_is_fetched_unless_asked_for() -> None:
    model = TimmBackbone("resnet18", pretrained=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.fetch_weights()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
