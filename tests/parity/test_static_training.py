from __future__ import annotations

import pytest
import torch
from networks import load_model
from recordings import Recording
from replay_training import configure, replay
from tolerances import LOSS

NETWORKS = ("mask_rcnn", "htc", "r3cnn_naive")


@pytest.mark.slow
@torch.no_grad()
def test_static_shapes_give_the_recorded_losses(recording: Recording) -> None:
    model = configure(load_model(recording), "train_given")
    model.roi_heads.static_shapes = True
    try:
        step = replay(model, recording, "train_given")
    finally:
        model.roi_heads.static_shapes = None
    weighted = [value for key, value in step.recorded["losses"].items() if "loss" in key]
    assert sorted(loss.item() for loss in step.losses.values()) == pytest.approx(sorted(weighted), rel=LOSS)
