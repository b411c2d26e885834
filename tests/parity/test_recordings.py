"""Nothing that was recorded goes unchecked, and the recorded settings are those of our experiments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from networks import load_config, schedule_of
from recordings import Recording, experiment_of
from replay import EVAL_RUN
from replay_training import TRAIN_RUN

INFERENCE = rf"(?P<run>{EVAL_RUN.pattern})/img\d+"
TRAINING = rf"(?P<run>{re.sub(r'[?]P<[a-z]+>', '', TRAIN_RUN.pattern)})"
STATISTICS = "(shape|mean|std|absmax)"
# Which test compares the arrays that a pattern matches.
ARRAYS = {
    r"feat/[cp]\d_sample": "test_backbone_and_pyramid_features_equal",
    r"feat/rpn_(cls|reg)\d_sample": "test_rpn_outputs_equal",
    r"rpn_test/img\d+_proposals": "test_proposals_equal_as_sets",
    rf"{INFERENCE}/stage\d+_(rois|roifeat_sample|cls_logits_first\d+|bbox_pred(_first\d+)?)": (
        "test_each_loop_equals_from_the_rois_recorded_before_it"
    ),
    rf"{INFERENCE}/(merged_cls_logits_first64|det_bboxes|det_labels)": (
        "test_fused_scores_equal_and_detections_equal_as_sets"
    ),
    rf"{INFERENCE}/(mask28_top\d+|mask_loop\d+_logits_sample|pasted_mask_areas|mask_iou_pred|mask_scores)": (
        "test_masks_of_the_recorded_detections_equal"
    ),
    r"train_given(_dec)?/proposals_img\d+": "test_the_given_proposals_are_the_recorded_ones",
    r"train(_dec|_gtignore.*)?/proposals_img\d+": "test_training_proposals_equal_as_sets",
    rf"{TRAINING}/stage\d+_(box|mask)_img\d+_pos_(inds|gt)": "test_every_assignment_equals",
    rf"{TRAINING}/refined_after_stage\d+_img\d+": "test_refined_boxes_equal",
    rf"{TRAINING}/(stage\d+_(cls|reg)|mask_call\d+)_sample": "test_outputs_of_every_loop_equal",
    rf"{TRAINING}/mask_targets\d+_packed": "test_mask_targets_equal",
    rf"{TRAINING}/mask_iou_(targets|pred_sample)": "test_mask_ious_equal",
}
# Which test compares the entries of the manifest that a pattern matches.
ENTRIES = {
    r"arch|config|seed|test_cfg/.+|roi_head/.+": "test_settings_equal_those_of_the_experiment",
    r"roi_test_first_n_proposals": "test_each_loop_equals_from_the_rois_recorded_before_it",
    r"train_rpn_proposals_cap": "test_training_proposals_equal_as_sets",
    r"arrays/.+": "test_every_array_is_compared_by_one_test",
    rf"features/[cp]\d/{STATISTICS}": "test_backbone_and_pyramid_features_equal",
    rf"features/rpn_(cls|reg)\d/{STATISTICS}": "test_rpn_outputs_equal",
    rf"roi_test/{INFERENCE}/(n_bbox_calls|stage\d+_(roifeat|cls|reg)/{STATISTICS})": (
        "test_each_loop_equals_from_the_rois_recorded_before_it"
    ),
    rf"roi_test/{INFERENCE}/(n_det|n_det_labels|score_max|score_min)": (
        "test_fused_scores_equal_and_detections_equal_as_sets"
    ),
    rf"roi_test/{INFERENCE}/(n_mask_calls|n_iou_calls|mask_image_shape)": "test_masks_of_the_recorded_detections_equal",
    rf"roi_test/{INFERENCE}/(mask_loop\d+_logits|mask_iou_all_classes_sample)/{STATISTICS}": (
        "test_masks_of_the_recorded_detections_equal"
    ),
    rf"train/{TRAINING}/losses/.+": "test_losses_equal",
    rf"train/{TRAINING}/(total|log_vars/.+)": "test_the_total_loss_and_what_is_logged_equal",
    rf"train/{TRAINING}/events": "test_every_assignment_equals",
    rf"train/{TRAINING}/mask_call\d+/{STATISTICS}": "test_outputs_of_every_loop_equal",
    rf"train/{TRAINING}/mask_targets\d+/({STATISTICS}|per_roi_sum_first20)": "test_mask_targets_equal",
    rf"train/{TRAINING}/(grad_norm/.+|grad_norm_per_param/.+|grad_none|grad_exactly_zero)": "test_gradients_equal",
    rf"train/{TRAINING}/note": "test_settings_equal_those_of_the_experiment",
}
TIMES = r"seconds_total|(roi_test|train)/.+/seconds"  # how long the original took


def claims(patterns: dict[str, str], key: str) -> list[str]:
    return [test for pattern, test in patterns.items() if re.fullmatch(re.sub(r"[?]P<run>", "", pattern), key)]


def leaves(node: dict, path: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}/")
        else:
            yield f"{path}{key}"


def test_every_array_is_compared_by_one_test(recording: Recording) -> None:
    unclaimed = [key for key in recording.arrays if len(claims(ARRAYS, key)) != 1]
    assert not unclaimed
    described = {key: [list(array.shape), str(array.dtype)] for key, array in recording.arrays.items()}
    assert described == recording.manifest["arrays"]
    # The tests run over the runs and images of the manifest.
    runs = {run.split("/")[0] for run in (*recording.manifest["roi_test"], *recording.manifest["train"])}
    assert {key.split("/")[0] for key in recording.arrays} <= runs | {"feat", "rpn_test"}
    images = {re.search(r"img(\d+)", key) for key in recording.arrays}
    assert {int(match[1]) for match in images if match} == set(recording.image_numbers)


def test_every_entry_of_the_manifest_is_compared_by_one_test(recording: Recording) -> None:
    entries = [entry for entry in leaves(recording.manifest) if not re.fullmatch(TIMES, entry)]
    assert not [entry for entry in entries if len(claims(ENTRIES, entry)) != 1]
    assert {name.split("/")[1] for name in recording.manifest["roi_test"]} == {
        f"img{image}" for image in recording.image_numbers
    }


@pytest.mark.parametrize("test", sorted({*ARRAYS.values(), *ENTRIES.values()}))
def test_every_claim_is_made_by_a_test_that_exists(test: str) -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("*tests.py")]
    sources += [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    assert sum(f"def {test}(" in source for source in sources) == 1


def test_settings_equal_those_of_the_experiment(recording: Recording) -> None:
    manifest, model = recording.manifest, load_config(experiment_of(recording.name))["model"]
    assert manifest["arch"] == recording.name
    assert manifest["config"].endswith(".py")
    proposals, detection = model["rpn"]["eval_proposals"], model["roi_heads"]["detection"]
    assert manifest["test_cfg"] == {
        "rpn": {
            "nms_across_levels": False,
            "nms_pre": proposals["per_level"],
            "nms_post": proposals["per_image"],
            "max_num": proposals["per_image"],
            "nms_thr": proposals["nms_threshold"],
            "min_bbox_size": 0,
        },
        "rcnn": {
            "score_thr": detection["score_threshold"],
            "nms": {"type": "nms", "iou_threshold": detection["nms_threshold"]},
            "max_per_img": detection["max_detections"],
            "mask_thr_binary": detection["mask_threshold"],
        },
    }
    schedule, head = schedule_of(recording), manifest["roi_head"]
    assert head["type"] in ("StandardRoIHead", "HybridTaskCascadeRoIHead", "RecRoIHead")
    loops = head["num_stages"] or 1
    assert schedule.num_loops == loops
    assert head["num_stages_test"] is None
    assert list(schedule.loss_weights) == (head["stage_loss_weights"] or [1])[:loops]
    assert list(schedule.heads) == (head["stages"][:loops] if head["type"] == "RecRoIHead" else list(range(loops)))
    # Where statistics are those of the batch, the recording kept them fixed, as our tests do.
    notes = {run["note"] for run in manifest["train"].values() if run.get("note")}
    assert bool(notes) == (model["backbone"]["norm"] == "sync_bn")
