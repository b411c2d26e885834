"""Normalisation as it stands in configurations of mmdetection."""

from __future__ import annotations

import pytest
import torch

from r3cnn.interop.foreign import ForeignCheckpoint
from r3cnn.interop.image_norm import ImageNorm, image_norm_in, to_rgb, uses_caffe_style
from r3cnn.interop.mmdetection_meta import image_norm_of

V2 = """/home/someone/configs/mask_rcnn.py
model = dict(backbone=dict(type='ResNet', depth=50, style='pytorch'))
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [dict(type='Normalize', **img_norm_cfg), dict(type='Pad', size_divisor=32)]
"""
V3 = """model = dict(
    backbone=dict(style='pytorch'),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            123.675,
            116.28,
            103.53,
        ],
        pad_mask=True,
        std=[58.395, 57.12, 57.375],
        type='DetDataPreprocessor'),
    type='MaskRCNN')
"""
RGB = ImageNorm((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb")
BGR = ImageNorm((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "bgr")


@pytest.mark.parametrize("text", [V2, V3])
def test_versions_2_and_3_are_understood(text: str) -> None:
    assert image_norm_in(text) == RGB


def test_the_last_statement_counts_since_bases_come_first() -> None:
    own = "img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1, 1, 1], to_rgb=False)\n"
    assert image_norm_in(V2 + own) == BGR


def test_a_pipeline_alone_is_enough() -> None:
    text = "test_pipeline = [dict(type='Normalize', mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)]"
    assert image_norm_in(text) == BGR


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 1, 1])", "rgb"),
        ("train_pipeline = [dict(type='Normalize', mean=[1, 2, 3], std=[1, 1, 1])]", "rgb"),
        ("model = dict(data_preprocessor=dict(mean=[1, 2, 3], std=[1, 1, 1]))", "bgr"),
    ],
)
def test_an_unsaid_order_is_the_default_of_the_version_that_leaves_it_out(text: str, order: str) -> None:
    assert image_norm_in(text) == ImageNorm((1, 2, 3), (1, 1, 1), order)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "img_norm_cfg = dict(mean=[1, 2, 3], std=[1, 1, 1], to_rgb=is_rgb)",
        "img_norm_cfg = dict(",
        "img_norm_cfg = dict(mean=mean, std=std)",
        "img_norm_cfg = dict(mean=[1, 2, 'x'], std=[1, 1, 1])",
    ],
)
def test_what_states_nothing_in_full_states_nothing(text: str) -> None:
    assert image_norm_in(text) is None


def test_nothing_in_a_configuration_is_run() -> None:
    text = "img_norm_cfg = dict(mean=print('ran') or [1, 2, 3], std=[1, 1, 1])"
    assert image_norm_in(text) is None


def test_caffe_style_is_seen_and_refused() -> None:
    assert not uses_caffe_style(V2)
    caffe = V2 + 'model = dict(backbone=dict(style="caffe"))\n'
    assert uses_caffe_style(caffe)
    with pytest.raises(ValueError, match="caffe-style ResNet"):
        image_norm_of(ForeignCheckpoint({}, {"config": caffe}, ()))


def test_without_a_configuration_the_numbers_of_the_preprocessor_count() -> None:
    state = {
        "data_preprocessor.mean": torch.tensor([1.0, 2, 3]).view(3, 1, 1),
        "data_preprocessor.std": torch.ones(3, 1, 1),
    }
    found = image_norm_of(ForeignCheckpoint(state, {}, ()))
    assert found is not None
    assert found[0] == ImageNorm((1, 2, 3), (1, 1, 1), "rgb")


def test_a_bgr_network_and_its_rgb_twin_say_the_same_of_an_image() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 8, 8, generator=generator) * 255  # red, green, blue
    first = torch.randn(4, 3, 3, 3, generator=generator)
    norm = ImageNorm((103.5, 116.3, 123.7), (57.4, 57.1, 58.4), "bgr")
    twin, rgb = to_rgb({"backbone.conv1.weight": first}, norm)

    def response(pixels: torch.Tensor, norm: ImageNorm, weight: torch.Tensor) -> torch.Tensor:
        mean, std = torch.tensor(norm.mean).view(3, 1, 1), torch.tensor(norm.std).view(3, 1, 1)
        return torch.conv2d((pixels - mean) / std, weight)

    expected = response(image.flip(1), norm, first)
    torch.testing.assert_close(response(image, rgb, twin["backbone.conv1.weight"]), expected)
    assert rgb.order == "rgb"


def test_an_rgb_network_stays_as_it_is() -> None:
    weights = {"backbone.conv1.weight": torch.randn(4, 3, 3, 3)}
    same, norm = to_rgb(weights, RGB)
    assert same["backbone.conv1.weight"] is weights["backbone.conv1.weight"]
    assert norm is RGB


@pytest.mark.parametrize("weights", [{}, {"backbone.conv1.weight": torch.zeros(4, 1, 3, 3)}])
def test_channels_that_are_not_three_cannot_be_turned_round(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="does not take three channels"):
        to_rgb(weights, BGR)


@pytest.mark.parametrize(
    ("mean", "std", "order"), [((1, 2), (1, 1, 1), "rgb"), ((1, 2, 3), (0, 1, 1), "rgb"), ((1, 2, 3), (1, 1, 1), "gbr")]
)
def test_values_out_of_range_are_refused(mean: tuple[float, ...], std: tuple[float, ...], order: str) -> None:
    with pytest.raises(ValueError, match=r"three numbers|channel_order"):
        ImageNorm(mean, std, order)
