"""A sample of the trials; `make test-robustness` makes all of them, R3CNN_ROBUSTNESS_SEED=1 others."""

from __future__ import annotations

import os
from collections.abc import Sequence

import annotation_cases
import checkpoint_cases
import pytest
import setting_cases
from trial import Case, table

NUMBERS = os.environ.get("R3CNN_ROBUSTNESS", "10 100 6").split()  # settings, annotation files, checkpoints
SETTINGS, FILES, CHECKPOINTS = map(int, NUMBERS)
SEED = int(os.environ.get("R3CNN_ROBUSTNESS_SEED", "0"))
pytestmark = pytest.mark.timeout(10_000)


def check(results: Sequence[tuple[Case, str | None]]) -> None:
    print(table(results))
    assert [f"{fault}: {case.name}" for case, fault in results if fault] == []


def test_mutated_settings_work_or_are_refused_in_one_line_before_anything_is_touched(places, tiny, tried) -> None:
    check(tried(setting_cases.cases(SETTINGS, SEED, tiny, places)))


def test_broken_annotation_files_are_read_or_refused_by_name(tried_files) -> None:
    check(tried_files(annotation_cases.cases(FILES, SEED)))


def test_damaged_checkpoints_work_or_are_refused_in_one_line_that_names_the_file(places, tiny, tried, tmp_path) -> None:
    sound = places["run"] / "checkpoints/last.ckpt"
    check(tried(checkpoint_cases.cases(CHECKPOINTS, SEED, sound, tiny, places, tmp_path)))
