"""What belongs to all recordings: the weight rule, the names of the weights, and which files there are."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from networks import load_config
from recordings import (
    COPY,
    SYSTEMS,
    batch_statistics_in,
    find_shared,
    keys_of,
    knows,
    load_rule,
    names_in,
    recordings_in,
)

from r3cnn.interop.mmdetection import translate
from r3cnn.training.checkpoint import build_model

INPUT = re.compile(r"(img|gt_bboxes_ignore|gt_bboxes|gt_labels|gt_masks|given_proposals)(\d*)")


def test_every_file_is_a_known_recording_with_both_parts(golden: Path) -> None:
    others = set(names_in(golden)) - set(recordings_in(golden)) - set(batch_statistics_in(golden))
    assert not others, f"no network is known for {sorted(others)}, or its .json or .npz is missing"


def test_the_weight_rule_gives_the_recorded_numbers(golden: Path) -> None:
    file = find_shared(golden, "weights_check.json")
    beside = file.with_name("weights.py")
    rule = load_rule(beside if beside.exists() else find_shared(golden, "weights.py"))
    for entry, expected in json.loads(file.read_text()).items():
        seed, _, key = entry.partition(":")
        values = generated(rule, int(seed.removeprefix("seed")), key, expected["shape"])
        assert list(values.shape) == expected["shape"], entry
        if hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest() == expected["sha256"]:
            continue
        # Another build of numpy may round the mean that is subtracted differently.
        if "mean" in expected:
            assert float(values.mean()) == pytest.approx(expected["mean"], abs=1e-6), entry
        else:
            first = values.reshape(-1)[:4].astype(np.float64)
            assert first == pytest.approx(expected["first4"], abs=1e-6), entry


def generated(rule: ModuleType, seed: int, key: str, shape: list[int]) -> np.ndarray:
    match = INPUT.fullmatch(key)
    if not match:
        return rule.make(key, shape, seed)
    known = rule if knows(rule, seed) else load_rule(COPY / "weights.py")
    if match[1] == "given_proposals":
        return known.given_proposals(seed)[int(match[2])]
    values = known.inputs(seed)[match[1]]
    return values[int(match[2])] if match[2] else values


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_weight_of_the_original_has_a_place_of_its_shape(golden: Path, system: str) -> None:
    theirs = {key: torch.empty(shape, device="meta") for key, shape, _ in keys_of(golden, system)}
    with torch.device("meta"):
        model = build_model(load_config(system)["model"], trusted=None)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert {key: list(value.shape) for key, value in translate(theirs).weights.items()} == ours


def test_a_folder_with_parameter_counts_has_those_that_the_contract_tests_compare(golden: Path) -> None:
    copy = COPY.parent / "params.json"
    for file in (golden / "params.json", golden.parent / "params.json", copy):
        if file.exists():
            assert json.loads(file.read_text()) == json.loads(copy.read_text()), file
