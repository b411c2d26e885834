"""GRoIE: every RoI sees every level."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from r3cnn.layers.attention import RelativePositionAttention
from r3cnn.roi.extractors import GRoIEExtractor, SingleLevelRoIExtractor
from r3cnn.structures import Rois

STRIDES = (4, 8, 16, 32)


def extractor() -> GRoIEExtractor:
    torch.manual_seed(0)
    return GRoIEExtractor(
        in_channels=8,
        output_size=7,
        strides=STRIDES,
        sampling_ratio=2,
        kernel_size=5,
        attention=partial(RelativePositionAttention, heads=2, key_stride=2, wave_length=1000.0, transposed_y=True),
    )


def pyramid() -> list[torch.Tensor]:
    """Five levels as from the pyramid; the coarsest is for proposals alone."""
    return [torch.randn(2, 8, 64 // s + 1, 96 // s + 1) for s in (*STRIDES, 64)]


@pytest.mark.parametrize("keep_empty", [True, False])
@torch.no_grad()
def test_a_roi_is_the_attended_sum_of_all_levels_after_a_shared_convolution(keep_empty: bool) -> None:
    groie, levels = extractor(), pyramid()
    groie.attention.gamma.fill_(0.5)
    boxes = torch.tensor([[[1.0, 2, 30, 40], [50, 5, 90, 60]], [[0, 0, 5, 5], [0, 0, 0, 0]]])
    rois = Rois(boxes, torch.tensor([[True, True], [True, False]])).rows(keep_empty=keep_empty)
    table = torch.tensor([[0, 1.0, 2, 30, 40], [0, 50, 5, 90, 60], [1, 0, 0, 5, 5]])
    summed = sum(
        F.relu(groie.conv(roi_align(level, table, 7, 1 / stride, 2, aligned=True)))
        for level, stride in zip(levels, STRIDES, strict=False)
    )
    torch.testing.assert_close(groie(levels, rois)[rois.valid], groie.attention(summed), rtol=1e-5, atol=1e-5)


def test_no_roi_gives_nothing() -> None:
    rois = Rois(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)).rows(keep_empty=False)
    assert extractor()(pyramid(), rois).shape == (0, 8, 7, 7)


def test_a_roi_that_is_not_finite_gives_zeros_and_the_others_what_they_give_alone() -> None:
    levels, nan = pyramid(), float("nan")
    boxes = torch.tensor([[1.0, 2, 30, 40], [nan, nan, nan, nan], [50, 5, 90, 60]])
    everything = Rois(boxes[None], torch.ones(1, 3, dtype=torch.bool)).rows(keep_empty=False)
    sound = Rois(boxes[None, ::2], torch.ones(1, 2, dtype=torch.bool)).rows(keep_empty=False)
    extractor = SingleLevelRoIExtractor(7, STRIDES, 56)
    pooled = extractor(levels, everything)
    assert pooled[1].abs().max() == 0
    assert torch.equal(pooled[::2], extractor(levels, sound))
