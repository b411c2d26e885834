"""Which settings `r3cnn analyze speed` compares, and which make no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from r3cnn.cli.analyze_speed import settings_of
from r3cnn.cli.configs import config_folder
from r3cnn.inference_modes import InferenceModes
from r3cnn.roi.early_exit import EarlyExit
from r3cnn.schedule import LoopSchedule

SCHEDULE = LoopSchedule(
    heads=[0, 0, 0],
    iou_thresholds=[0.5, 0.6, 0.7],
    loss_weights=[1.0, 1.0, 1.0],
    eval_heads=[0, 0, 0],
    delta_stds=[[0.1, 0.1, 0.2, 0.2]],
    interleaved=True,
    mask_feedback="off",
)
EXIT = {"background_above": 0.9, "score_change": 0.05, "box_iou": 0.9}


def test_the_network_as_trained_comes_first_and_a_point_names_only_what_it_switches_on() -> None:
    curves = {"a": [{"eval_loops": 2}, {"early_exit": EXIT}], "b": [{"precision": "bf16", "compile": True}]}
    plain, two, leaving, fast = settings_of(OmegaConf.create(curves), SCHEDULE)
    assert (plain.name, plain.eval_heads, plain.modes.precision) == ("as trained, 3 loops", (0, 0, 0), "float32")
    assert (two.name, two.eval_heads) == ("a, 2 loops", (0, 0))
    assert (leaving.name, leaving.modes.early_exit) == ("a, 0.9/0.05/0.9", EarlyExit(**EXIT))
    assert fast.modes == InferenceModes(fast.modes.early_exit, "bf16", True)


def test_the_settings_in_conf_make_sense() -> None:
    curves = OmegaConf.load(Path(config_folder()) / "analyze.yaml").curves
    settings = settings_of(curves, SCHEDULE)
    assert {setting.curve for setting in settings} == {"as trained", *curves}


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({"a": {"eval_loops": 1}}, r"curves\.a must be a list of settings"),
        ({"a": [{"loops": 1}]}, "curves.a has 'loops': a setting may have eval_loops, early_exit, precision, compile"),
        ({"a": [{"eval_loops": 0}]}, "curves.a: eval_loops must be a whole number >= 1, got 0"),
        ({"a": [{"precision": "fp8"}]}, "curves.a.precision is 'fp8': one of"),
        ({"a": [{"early_exit": {**EXIT, "box_iou": 2}}]}, r"curves\.a\.early_exit\.box_iou must be in"),
        ({"a": [{"early_exit": {"background_above": 1}}]}, r"curves\.a\.early_exit\.score_change is missing"),
        ({"a": [{"eval_loops": 1}, {"eval_loops": 1}]}, "curves has two settings of one name: a, 1 loops"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(curves: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings_of(OmegaConf.create(curves), SCHEDULE)
