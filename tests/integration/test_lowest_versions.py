"""The whole program with nothing but its dependencies, of which wandb is imported only when it is chosen.

`make test-lowest` runs this file with the lowest versions that pyproject.toml names, and without wandb.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import TINY_RUN

from r3cnn.training.position import step_in

WITHOUT_WANDB = """
import json, sys
sys.modules["wandb"] = None  # an import of it fails
from r3cnn.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["r3cnn", *arguments]
    main()
"""


def run_without_wandb(*commands: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """The commands, one after the other, in a process in which wandb cannot be imported."""
    program = [sys.executable, "-c", WITHOUT_WANDB, json.dumps(commands)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained and resumed (``run``), evaluated, searched for objects and reported."""
    root = tmp_path_factory.mktemp("without_wandb")
    run, best = root / "run", root / "run" / "checkpoints" / "best.ckpt"
    done = run_without_wandb(
        ("train", *TINY_RUN, f"output_dir={run}"),
        ("train", *TINY_RUN, f"output_dir={run}", "resume=last", "trainer.max_steps=6"),
        ("evaluate", f"checkpoint={best}", f"output_dir={root / 'evaluated'}", "trainer.accelerator=cpu"),
        ("predict", f"checkpoint={best}", f"source={run / 'pictures'}", f"output_dir={root / 'found'}", "device=cpu"),
        ("report", f"runs=[{run},{root / 'evaluated'}]", f"output_dir={root / 'report'}"),
    )
    assert done.returncode == 0, done.stderr
    return root


def test_train_resume_evaluate_predict_and_report_need_no_wandb(folders: Path) -> None:
    assert step_in(folders / "run" / "checkpoints" / "last.ckpt") == 6
    trained, evaluated = (json.loads((folders / name / "metrics.json").read_text()) for name in ("run", "evaluated"))
    assert trained["loops"].keys() == evaluated["loops"].keys() == {"1", "2", "3"}
    assert isinstance(json.loads((folders / "found" / "detections.json").read_text()), list)
    assert "evaluated" in (folders / "report" / "report.md").read_text(encoding="utf-8")


def test_wandb_that_is_chosen_and_cannot_be_imported_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    done = run_without_wandb(("train", *TINY_RUN, f"output_dir={tmp_path / 'run'}", "logger=wandb"))
    assert done.returncode != 0
    assert "logger=wandb needs wandb, which cannot be imported" in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()
