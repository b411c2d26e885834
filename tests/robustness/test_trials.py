"""A sample of the trials; `make test-robustness` makes all of them, R3CNN_ROBUSTNESS_SEED=1 others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import annotation_cases
import checkpoint_cases
import numpy as np
import pytest
import setting_cases
from PIL import Image
from tiny_runs import TINY_RUN
from trial import Case, Verdict, attempt, table

from r3cnn.data.reading import read_annotations

NUMBERS = os.environ.get("R3CNN_ROBUSTNESS", "10 100 6").split()
SETTINGS, FILES, CHECKPOINTS = map(int, NUMBERS)
SEED = int(os.environ.get("R3CNN_ROBUSTNESS_SEED", "0"))
OTHERWISE = {"trainer.max_steps": 1, "trainer.val_check_interval": 1, "pictures": 0, "data.batch_size": 2}
TINY = (
    *(word for word in TINY_RUN if word.partition("=")[0] not in OTHERWISE),
    *(f"{key}={value}" for key, value in OTHERWISE.items()),
)
pytestmark = pytest.mark.timeout(20_000)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files and folders that settings name, among them a finished run; `run_copy` and `out` lie in `watched`."""
    from r3cnn.cli import analyze, bench, convert, data, evaluate, export, predict, report, train  # noqa: F401  (warm)

    root = tmp_path_factory.mktemp("robustness")
    outcome = attempt(["train", *TINY, f"data.root={root}/shapes", f"output_dir={root}/run"], root / "none")
    assert outcome.status == 0, outcome.text
    square = np.zeros((32, 32), dtype=np.uint8)
    square[8:20, 8:20] = 255
    for name, mode in (("images/a.png", "RGB"), ("masks/a/1.png", "L")):
        (root / "masks" / name).parent.mkdir(parents=True)
        Image.fromarray(square).convert(mode).save(root / "masks" / name)
    watched = {"watched": root / "watched", "run_copy": root / "watched/run", "out": root / "watched/out"}
    return {"image": root / "masks/images/a.png"} | {name: root / name for name in ("run", "shapes", "masks")} | watched


@pytest.fixture(scope="session")
def tiny(places: dict[str, Path]) -> tuple[str, ...]:
    """Settings of a training run of one step on the images of `places`."""
    return (*TINY, f"data.root={places['shapes']}")


def check(results: Iterable[tuple[Case, str | None, str]]) -> None:
    """Tells of each fault when it is found, and of all at the end."""
    found = []
    for case, fault, told in results:
        found.append((case, fault))
        if fault:
            print(f"\n{fault}: {case.name} ({case.verdict.value})\n    {told.strip()[-600:]}", flush=True)
    print(f"\n{table(found)}")
    assert [f"{fault}: {case.name}" for case, fault in found if fault] == []


def tried(cases: Iterable[Case], places: dict[str, Path]) -> Iterator[tuple[Case, str | None, str]]:
    """Tries cases one after the other, each beside a fresh copy of the run."""
    for case in cases:
        shutil.rmtree(places["watched"], ignore_errors=True)
        shutil.copytree(places["run"], places["run_copy"])
        outcome = attempt(case.words, places["watched"])
        yield case, outcome.fault(case), outcome.text


def tried_files(cases: Iterable[tuple[Case, bytes]], file: Path) -> Iterator[tuple[Case, str | None, str]]:
    """Reads annotation files one after the other in this process."""
    for case, content in cases:
        file.write_bytes(content)
        fault, told = ("silently taken" if case.verdict is Verdict.INVALID else None), ""
        try:
            read_annotations(file, ("dog", "cat"), max_overhang=0.1)
        except Exception as error:
            told = repr(error)
            is_named = isinstance(error, ValueError) and str(file) in str(error) and len(str(error)) < 2000
            fault = "raw crash, or does not name the file" if not is_named else None
            fault = "refused though valid" if case.verdict is Verdict.VALID else fault
        yield case, fault, told


def test_mutated_settings_work_or_are_refused_in_one_line_before_anything_is_touched(places, tiny) -> None:
    check(tried(setting_cases.cases(SETTINGS, SEED, places, tiny), places))


def test_broken_annotation_files_are_read_or_refused_by_name(tmp_path) -> None:
    check(tried_files(annotation_cases.cases(FILES, SEED), tmp_path / "broken.json"))


def test_damaged_checkpoints_work_or_are_refused_in_one_line_that_names_the_file(places, tiny, tmp_path) -> None:
    check(tried(checkpoint_cases.cases(CHECKPOINTS, SEED, places, tiny, tmp_path), places))
