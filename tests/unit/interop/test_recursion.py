"""What configurations of mmdetection say about loops, in the texts of its versions."""

from __future__ import annotations

import pytest

from r3cnn.interop.recursion import StatedLoops, loops_in
from r3cnn.schedule import LoopSchedule

WIDE, MIDDLE, NARROW = (0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)


def head(stds: tuple[float, ...]) -> str:
    return f"dict(type='Shared2FCBBoxHead', bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds={list(stds)}))"


def rcnn(*thresholds: float) -> str:
    entries = [
        f"dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr={value}), pos_weight=-1)" for value in thresholds
    ]
    return f"[{', '.join(entries)}]"


def cascade(num_stages: int, weights: list[float], *rows: tuple[float, ...]) -> str:
    heads = ", ".join(head(row) for row in rows)
    return f"roi_head=dict(num_stages={num_stages}, stage_loss_weights={weights}, bbox_head=[{heads}])"


HTC = LoopSchedule([0, 1, 2], [0.5, 0.6, 0.7], [1, 0.5, 0.25], [0, 1, 2], [WIDE, MIDDLE, NARROW], True, "released")
R3CNN = LoopSchedule([0, 0, 0], [0.5, 0.6, 0.7], [1, 0.75, 0.5], [0, 0, 0], [WIDE], True, "released")
MASK_RCNN = LoopSchedule([0], [0.5], [1], [0], [WIDE], False, "off")
# Version 3 has the settings of training inside the model, version 2 (until 2.4) beside it.
HTC_HEAD = cascade(3, [1, 0.5, 0.25], WIDE, MIDDLE, NARROW)
HTC_3 = f"model = dict(\n  {HTC_HEAD},\n  train_cfg=dict(rcnn={rcnn(0.5, 0.6, 0.7)}))"
R3CNN_2 = f"model = dict({cascade(3, [1, 0.75, 0.5], WIDE)})\ntrain_cfg = dict(rcnn={rcnn(0.5, 0.6, 0.7)})\n"


@pytest.mark.parametrize(("text", "schedule"), [(HTC_3, HTC), (R3CNN_2, R3CNN)])
def test_a_cascade_is_understood_in_full(text: str, schedule: LoopSchedule) -> None:
    found = loops_in(text)
    assert found == StatedLoops(3, schedule.delta_stds, schedule.loss_weights, schedule.iou_thresholds)
    assert found.contradictions(schedule) == {}


def test_every_contradiction_gives_the_option_that_would_say_the_same() -> None:
    assert loops_in(R3CNN_2).contradictions(HTC) == {
        "delta_stds": "recursion.delta_stds=[[0.1,0.1,0.2,0.2]]",
        "loss_weights": "recursion.loss_weights=[1.0,0.75,0.5]",
    }
    falling = R3CNN_2.replace(rcnn(0.5, 0.6, 0.7), rcnn(0.7, 0.6, 0.5))
    assert loops_in(falling).contradictions(R3CNN) == {"iou_thresholds": "recursion.iou_thresholds=[0.7,0.6,0.5]"}


def test_of_more_thresholds_than_loops_the_first_ones_count() -> None:
    text = R3CNN_2.replace("num_stages=3", "num_stages=2").replace("[1, 0.75, 0.5]", "[1, 0.75]")
    two = LoopSchedule([0, 0], [0.5, 0.6], [1, 0.75], [0, 0], [WIDE], True, "released")
    assert loops_in(text).contradictions(two) == {}
    assert "heads" in loops_in(text).contradictions(R3CNN)


def test_a_network_with_one_head_says_it_without_lists() -> None:
    text = f"model = dict(roi_head=dict(bbox_head={head(WIDE)}))\ntrain_cfg = dict(rcnn={rcnn(0.5)[1:-1]})"
    assert loops_in(text) == StatedLoops(None, (WIDE,), None, (0.5,))
    assert loops_in(text).contradictions(MASK_RCNN) == {}


def test_a_later_statement_changes_what_its_base_says_and_delete_forgets_it() -> None:
    changed = HTC_3 + "\nmodel = dict(roi_head=dict(stage_loss_weights=[1, 0.75, 0.5]))\n"
    assert loops_in(changed) == StatedLoops(3, HTC.delta_stds, (1, 0.75, 0.5), HTC.iou_thresholds)
    forgotten = HTC_3 + f"\nmodel = dict(roi_head=dict(_delete_=True, bbox_head={head(WIDE)}))\n"
    assert loops_in(forgotten) == StatedLoops(None, (WIDE,), None, HTC.iou_thresholds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model = dict(",
        "model = dict(roi_head=3, train_cfg=[])",
        "model = dict(roi_head=dict(bbox_head=[dict(bbox_coder=dict(target_stds=stds))]), train_cfg=dict(rcnn=loops))",
        "model = dict(" + "(" * 5000 + ")" * 5000 + ")",
        "model = dict(roi_head=dict(stage_loss_weights=[1" + "0" * 400 + "]))",
    ],
)
def test_what_cannot_be_read_states_nothing(text: str) -> None:
    assert loops_in(text).contradictions(HTC) == {}


def test_a_parenthesis_in_a_comment_or_a_string_does_not_end_a_value() -> None:
    text = "model = dict(  # don't (yet\n  type=')', " + cascade(1, [1], WIDE) + ")"
    assert loops_in(text) == StatedLoops(1, (WIDE,), (1.0,), None)
