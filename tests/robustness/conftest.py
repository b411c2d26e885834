"""What all trials start from: a finished tiny run, its images, and a folder that is watched."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trial import Case, Verdict, attempt, run_program

sys.path.append(str(Path(__file__).parents[1] / "integration"))
from tiny_runs import TINY_RUN

OTHERWISE = {"trainer.max_steps": 1, "trainer.val_check_interval": 1, "pictures": 0, "data.batch_size": 2}
SETTINGS = (
    *(word for word in TINY_RUN if word.partition("=")[0] not in OTHERWISE),
    *(f"{key}={value}" for key, value in OTHERWISE.items()),
)


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files and folders that settings name; ``watched`` holds the last two."""
    from r3cnn.cli import analyze, bench, convert, data, evaluate, export, predict, report, train  # noqa: F401  (warm)

    root = tmp_path_factory.mktemp("robustness")
    found = {name: root / name for name in ("run", "shapes", "masks")} | {"watched": root / "watched"}
    words = ["train", *SETTINGS, f"data.root={found['shapes']}", f"output_dir={found['run']}"]
    outcome = attempt(lambda: run_program(words), root / "none")
    assert outcome.status == 0, outcome.text
    for kind, mode in (("images", "RGB"), ("masks/a", "L")):
        (found["masks"] / kind).mkdir(parents=True)
        name = "a.png" if kind == "images" else "1.png"
        pixels = np.zeros((32, 32, 3) if mode == "RGB" else (32, 32), dtype=np.uint8)
        pixels[8:20, 8:20] = 255
        Image.fromarray(pixels).save(found["masks"] / kind / name)
    found["image"] = found["masks"] / "images/a.png"
    return found | {"run_copy": found["watched"] / "run", "out": found["watched"] / "out"}


@pytest.fixture(scope="session")
def tiny(places: dict[str, Path]) -> tuple[str, ...]:
    """Settings of a training run of one step on the images of `places`."""
    return (*SETTINGS, f"data.root={places['shapes']}")


@pytest.fixture(scope="session")
def tried(places: dict[str, Path]) -> Callable[[Sequence[Case]], list[tuple[Case, str | None]]]:
    """Tries cases one after the other, each beside a fresh copy of the run, and tells their faults."""

    def run(cases: Sequence[Case]) -> list[tuple[Case, str | None]]:
        found = []
        for case in cases:
            shutil.rmtree(places["watched"], ignore_errors=True)
            shutil.copytree(places["run"], places["run_copy"])
            outcome = attempt(lambda words=case.words: run_program(words), places["watched"])
            found.append((case, outcome.fault(case)))
            if found[-1][1]:
                told = f"({case.verdict.value}, {outcome.seconds:.1f} s)\n    {outcome.text.strip()[-600:]}"
                print(f"{found[-1][1]}: {case.name} {told}", flush=True)
        return found

    return run


@pytest.fixture
def tried_files(tmp_path: Path) -> Callable[[Sequence[tuple[Case, bytes]]], list[tuple[Case, str | None]]]:
    """Reads annotation files one after the other in this process, and tells what is wrong with what came of each."""
    from r3cnn.data.reading import read_annotations

    def fault(case: Case, file: Path) -> str | None:
        try:
            read_annotations(file, ("dog", "cat"), max_overhang=0.1)
        except ValueError as error:
            if case.verdict is Verdict.VALID:
                return f"refused though valid: {error}"
            return None if str(file) in str(error) and len(str(error)) < 2000 else f"does not name the file: {error}"
        except Exception as error:
            return f"raw crash: {error!r}"
        return "silently taken" if case.verdict is Verdict.INVALID else None

    def run(cases: Sequence[tuple[Case, bytes]]) -> list[tuple[Case, str | None]]:
        found = []
        for case, content in cases:
            file = tmp_path / "broken.json"
            file.write_bytes(content)
            found.append((case, fault(case, file)))
            if found[-1][1]:
                print(f"{found[-1][1]}: {case.name} ({case.verdict.value})", flush=True)
        return found

    return run
