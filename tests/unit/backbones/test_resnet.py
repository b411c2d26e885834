"""Freezing, normalisation and weights of the backbone."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from r3cnn.backbones import FPN, ResNet


def frozen(model: ResNet) -> set[str]:
    return {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (-1, set()),
        (0, {"conv1", "bn1"}),
        (1, {"conv1", "bn1", "layer1"}),
        (4, {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}),
    ],
)
def test_frozen_stages_count_like_the_released_configurations(stages: int, expected: set[str]) -> None:
    assert frozen(ResNet(10, "bn", stages, None)) == expected


def batch_norms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_bn_eval_keeps_all_statistics_and_trains_affine_parameters_outside_frozen_stages() -> None:
    model = ResNet(10, "bn_eval", 1, None).train()
    before = [layer.running_mean.clone() for layer in batch_norms(model)]
    torch.stack([f.sum() for f in model(torch.randn(2, 3, 64, 64))]).sum().backward()
    assert all(torch.equal(a, layer.running_mean) for a, layer in zip(before, batch_norms(model), strict=True))
    assert model.layer2[0].bn1.weight.grad is not None
    assert model.layer1[0].bn1.weight.grad is None


def test_live_bn_updates_statistics_outside_frozen_stages_only() -> None:
    model = ResNet(10, "bn", 1, None).train()
    model(torch.randn(2, 3, 64, 64))
    assert float(model.layer1[0].bn1.running_mean.abs().max()) == 0
    assert float(model.layer2[0].bn1.running_mean.abs().max()) > 0


def test_group_norm_has_no_running_statistics() -> None:
    assert not list(ResNet(10, "group_norm", -1, None).buffers())


@pytest.mark.parametrize("depth", [10, 18, 34, 50, 101])
def test_features_have_the_strides_and_channels_that_are_declared(depth: int) -> None:
    model = ResNet(depth, "bn_eval", 1, None).eval()
    with torch.no_grad():
        features = model(torch.zeros(1, 3, 64, 96))
    assert tuple(f.shape[1] for f in features) == model.out_channels
    assert [tuple(f.shape[2:]) for f in features] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_torchvision_weights_fit_and_give_torchvisions_features(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = resnet50(num_classes=1000).eval()
    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", lambda self, **_: theirs.state_dict())
    ours = ResNet(50, "bn_eval", 1, "ResNet50_Weights.IMAGENET1K_V1").eval()
    ours.fetch_weights()
    ours, theirs = ours.double(), theirs.double()  # in float32 folded norms round otherwise
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
        torch.testing.assert_close(ours(images)[3], expected)


def test_weights_that_cannot_be_fetched_give_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: ResNet50_Weights, **_: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", offline)
    model = ResNet(50, "bn_eval", 1, "ResNet50_Weights.IMAGENET1K_V1")
    with pytest.raises(RuntimeError, match=r"TORCH_HOME(.|\n)*backbone\.norm=group_norm"):
        model.fetch_weights()


@pytest.mark.parametrize("change", [{"depth": 42}, {"frozen_stages": 5}, {"frozen_stages": -2}])
def test_unknown_settings_are_refused(change: dict[str, object]) -> None:
    settings = {"depth": 10, "norm": "bn", "frozen_stages": 1, "weights": None}
    with pytest.raises(ValueError, match=next(iter(change))):
        ResNet(**(settings | change))


def test_pyramid_halves_the_coarsest_level_once_more() -> None:
    levels = FPN((8, 16, 32, 64), 4)(
        [torch.randn(1, c, 64 // s, 96 // s) for c, s in zip((8, 16, 32, 64), (4, 8, 16, 32), strict=True)]
    )
    assert [tuple(x.shape[1:]) for x in levels] == [(4, 16, 24), (4, 8, 12), (4, 4, 6), (4, 2, 3), (4, 1, 2)]
    assert torch.equal(levels[4], levels[3][:, :, ::2, ::2])


@pytest.mark.parametrize("norm", ["bn_eval", "group_norm"])
def test_checkpointing_changes_no_bit_of_features_and_gradients_and_keeps_less(norm: str) -> None:
    torch.manual_seed(0)
    plain = ResNet(18, norm, 0, None)
    frugal = ResNet(18, norm, 0, None, checkpointing=True)
    frugal.load_state_dict(plain.state_dict())
    images, kept, gradients = torch.randn(1, 3, 64, 96), [], []
    for model in (plain, frugal):
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, to=sizes: to.append(t.nbytes) or t, lambda t: t):
            features = model(images)
        kept.append(sum(sizes))
        torch.stack([feature.square().sum() for feature in features]).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert kept[1] < 0.7 * kept[0]
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


@pytest.mark.parametrize("norm", ["bn", "sync_bn"])
def test_checkpointing_of_live_statistics_is_refused(norm: str) -> None:
    with pytest.raises(ValueError, match="checkpointing needs norm=bn_eval or group_norm"):
        ResNet(10, norm, -1, None, checkpointing=True)
