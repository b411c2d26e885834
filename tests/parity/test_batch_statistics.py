from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from checks import assert_close
from networks import load_model
from recordings import BATCH_STATISTICS, load_recording
from tolerances import FEATURES
from torch import Tensor

from r3cnn.backbones import ResNet


@torch.no_grad()
def test_features_with_batch_statistics_equal(golden: Path, statistics_name: str) -> None:
    """The stem and the first stage are frozen and keep their running statistics.

    Channels that vary little in a batch are scaled up, and their rounding with them; the noise of the features was
    recorded with running statistics, so it is scaled by what this does to a small change of the images.
    """
    recording = load_recording(golden, statistics_name.removesuffix(BATCH_STATISTICS))
    running, batch = (copy.deepcopy(load_model(recording).backbone).train(mode) for mode in (False, True))
    change = 1e-3 * torch.randn(recording.images.shape, generator=torch.Generator().manual_seed(0))
    growth = [
        max(1.0, float(own / usual))
        for own, usual in zip(*(moves(net, recording.images, change) for net in (batch, running)), strict=True)
    ]
    assert max(growth) < 20
    with np.load(golden / f"{statistics_name}.npz") as recorded:
        levels = [f"c{level}_sample" for level in range(2, 6)]
        assert sorted(recorded) == levels
        for key, values, factor in zip(levels, batch(recording.images), growth, strict=True):
            expected = torch.from_numpy(recorded[key])
            assert_close(recording.sampled(values), expected, FEATURES * factor, f"{statistics_name}: {key}")


def moves(backbone: ResNet, images: Tensor, change: Tensor) -> list[Tensor]:
    """How far the features of each level move with the images."""
    pairs = zip(backbone(images), backbone(images + change), strict=True)
    return [(after - before).abs().max() for before, after in pairs]
