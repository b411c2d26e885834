"""What a checkpoint that may be anybody's says of the state of a run is checked before anything is touched."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from r3cnn.cli.initial import check_optimizer, check_state
from r3cnn.training.checkpoint_io import ModelCheckpoint
from r3cnn.training.measurements import Measurements
from r3cnn.training.optim import OptimizerSettings
from r3cnn.training.position import RUN
from r3cnn.training.weight_average import WeightAverage


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("exp_avg", torch.zeros(0)),
        ("exp_avg", torch.zeros(3, 5)),
        ("exp_avg", torch.full((1, 2), math.nan)),
        ("exp_avg", "text"),
        ("exp_avg_sq", torch.full((1, 2), -1.0)),
        ("step", [3]),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_a_state_of_an_optimizer_that_does_not_fit_its_tensor_is_refused(
    number: int, entry: str, value: object
) -> None:
    layers = torch.nn.ParameterList([torch.ones(1, 2), torch.ones(1, 2)])
    before = torch.optim.AdamW(layers, lr=0.1)
    sum(each.sum() for each in layers).backward()
    before.step()
    content = {"optimizer_states": [before.state_dict()]}
    settings = OptimizerSettings(torch.optim.AdamW, lr=0.1, base_images=1)
    check_optimizer(Path("last.ckpt"), content, settings, layers, "AdamW")
    content["optimizer_states"][0]["state"][number][entry] = value
    with pytest.raises(ValueError, match=rf"last\.ckpt is damaged: AdamW's state of tensor {number}"):
        check_optimizer(Path("last.ckpt"), content, settings, layers, "AdamW")


def test_a_setting_of_an_optimizer_that_is_a_tensor_of_many_numbers_is_refused() -> None:
    layer = torch.nn.Parameter(torch.ones(2))
    group = {**SGD([layer], lr=0.1).state_dict()["param_groups"][0], "fused": torch.zeros(3)}
    settings = OptimizerSettings(SGD, lr=0.1, base_images=1)
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged: SGD's fused is a tensor of \[3\]"):
        check_optimizer(
            Path("last.ckpt"), {"optimizer_states": [{"state": {}, "param_groups": [group]}]}, settings, [layer], "SGD"
        )


def trainer_and_content() -> tuple[lightning.Trainer, dict[str, Any]]:
    """A trainer with all callbacks of ours that keep a state, and a checkpoint of it."""
    callbacks = [
        EarlyStopping("val/mask_ap"),
        Measurements(warm_up_steps=1, warm_up_batches=1),
        WeightAverage(0.9),
        ModelCheckpoint(dirpath="checkpoints", monitor="val/mask_ap"),
    ]
    trainer = lightning.Trainer(accelerator="cpu", callbacks=callbacks, max_time="00:01:00:00", logger=False)
    order = {"seed": 0, "images": 8, "digest": "abc"}
    dealing = {"order": order, "batch_size": 2, "ranks": 1, "accumulated": 1, "epoch_batches": 4, "epoch": 0}
    schedule = LambdaLR(SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), lambda step: 1.0)
    return trainer, {
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": lightning.__version__,
        "loops": {"fit_loop": trainer.fit_loop.state_dict()},
        "callbacks": {each.state_key: each.state_dict() for each in trainer.callbacks if each.state_dict()},
        "optimizer_states": [{"state": {}, "param_groups": [{"params": [0]}]}],
        "lr_schedulers": [schedule.state_dict()],
        RUN: {**dealing, "first_batch": 0, "earlier": [], "optimizer": "SGD"},
    }


HOSTILE = (-1, 2**70, math.nan, math.inf, True, "text", None, [1], {"a": 1}, torch.zeros(3))
COUNTERS = ("loops", "fit_loop", "epoch_loop.batch_progress", "current", "ready")


@pytest.mark.parametrize(
    ("place", "values"),
    [
        (("epoch",), HOSTILE),
        (("global_step",), HOSTILE),
        *[(COUNTERS[:depth], HOSTILE) for depth in range(1, 6)],
        (("loops", "fit_loop", "epoch_progress", "current", "processed"), (*HOSTILE, 5)),
        (("loops", "fit_loop", "epoch_loop.batch_progress", "total", "completed"), (*HOSTILE, 5)),
        *[(("callbacks", name), HOSTILE[:-2]) for name in ("Timer", "Measurements", "WeightAverage", "EarlyStopping")],
        (("callbacks", "Timer", "time_elapsed"), HOSTILE),
        (("callbacks", "Timer", "time_elapsed", "train"), HOSTILE),
        (("callbacks", "Measurements", "seconds"), HOSTILE),
        (("callbacks", "WeightAverage", "latest_update_step"), HOSTILE),
        (("callbacks", "EarlyStopping", "wait_count"), HOSTILE),
        (("callbacks", "EarlyStopping", "best_score"), HOSTILE),
        (("callbacks", "EarlyStopping", "stopping_reason"), (*HOSTILE, 99)),
        (("callbacks", "EarlyStopping", "trainer"), HOSTILE),
        (("callbacks", "ModelCheckpoint", "best_model_path"), (*HOSTILE[:5], *HOSTILE[6:])),
        (("callbacks", "ModelCheckpoint", "best_k_models"), (*HOSTILE[:-2], {"a": "1"}, torch.zeros(3))),
        (("optimizer_states", 0), HOSTILE),
        (("optimizer_states", 0, "state"), (*HOSTILE, {0: 5}, {-1: {}})),
        (("optimizer_states", 0, "param_groups", 0, "params"), (*HOSTILE[:7], {"a": 1}, ["0"], [-1])),
        (("lr_schedulers", 0), HOSTILE),
        (("lr_schedulers", 0, "last_epoch"), HOSTILE),
        (("lr_schedulers", 0, "lr_lambdas"), (*HOSTILE, [{"a": 1}])),
        (("lr_schedulers", 0, "optimizer"), HOSTILE),
        (("lr_schedulers", 0, "step"), HOSTILE),
        (("lr_schedulers", 0, "__class__"), HOSTILE),
        ((RUN, "batch_size"), HOSTILE),
        ((RUN, "earlier"), HOSTILE[:7]),
    ],
    ids=lambda each: ".".join(map(str, each)) if isinstance(each, tuple) and isinstance(each[0], str) else "",
)
def test_states_that_a_resumed_run_would_stumble_over_are_refused(
    place: tuple[str | int, ...], values: tuple[object, ...]
) -> None:
    trainer, content = trainer_and_content()
    check_state(content, trainer)
    keys = {key.partition("{")[0]: key for key in content["callbacks"]}
    for value in values:
        changed: Any = copy.deepcopy(content)
        parent = changed
        for key in place[:-1]:
            parent = parent[keys.get(str(key), key)]
        parent[keys.get(str(place[-1]), place[-1])] = value
        with pytest.raises((ValueError, TypeError, LookupError)):  # which check_resumed tells with the file's name
            check_state(changed, trainer)
