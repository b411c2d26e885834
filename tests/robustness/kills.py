"""Thirty runs that are killed at random moments of each phase and started again: all end as the undisturbed ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_runs import KILLED, Moment, differences, run
from tiny_runs import TINY_RUN

SEED, KILLS_PER_PHASE = 13, 5
EACH_STEP = (*TINY_RUN, "pictures=0", "callbacks.last.every_n_train_steps=1")
CONFIGURATIONS = {
    "epochs": (
        *("trainer.max_epochs=3", "trainer.max_steps=-1", "trainer.val_check_interval=1.0"),
        *("trainer.check_val_every_n_epoch=1", "callbacks=ema_early_stopping", "callbacks.early_stopping.patience=2"),
        *("callbacks.best.save_top_k=2", "callbacks.last.every_n_train_steps=2"),
    ),
    "steps": (
        *("trainer.max_steps=8", "trainer.val_check_interval=2", "trainer.check_val_every_n_epoch=null"),
        "callbacks.last.every_n_train_steps=2",
    ),
    "accumulated": (
        *("trainer.max_steps=6", "trainer.accumulate_grad_batches=2", "data.batch_size=1", "callbacks=ema"),
        *("trainer.val_check_interval=3", "callbacks.best.save_top_k=2"),
    ),
    "ranks": (
        *("trainer.max_steps=6", "trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=1"),
        *("trainer.val_check_interval=2", "trainer.check_val_every_n_epoch=1"),
    ),
}
PHASES = {
    "first steps": [Moment(place, count) for place in ("step", "logging") for count in (1, 2)],
    "mid-epoch": [Moment("step", count, is_before) for count in (4, 5, 6) for is_before in (True, False)],
    "validation": [Moment("validation", count, is_before) for count in (1, 2, 4) for is_before in (True, False)],
    "saving": [Moment(place, count) for place in ("saving", "writing") for count in (1, 2, 3, 4)],
    "final evaluation": [Moment(place, 1, is_before) for place in ("best", "outcome") for is_before in (True, False)],
}
TRAINING = [
    (phase, name, moment)
    for phase, moments in PHASES.items()
    for name, moment in zip(
        ("epochs", "steps", "accumulated", "epochs", "steps"),
        random.Random(SEED).choices(moments, k=KILLS_PER_PHASE),
        strict=True,
    )
]
TRAINING += [
    ("two ranks", "ranks", random.Random(SEED + number).choice([moment for each in PHASES.values() for moment in each]))
    for number in range(KILLS_PER_PHASE)
]
Undisturbed = Callable[[str], Path]


def ranks_of(name: str) -> int:
    return 2 if name == "ranks" else 1


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Folder of the undisturbed run of a configuration, made once."""
    folders: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            words = ["train", *EACH_STEP, *CONFIGURATIONS[name], f"output_dir={folder}/run"]
            assert run(words, folder / "log", ranks=ranks_of(name)) == 0, (folder / "log").read_text()
            folders[name] = folder / "run"
        return folders[name]

    return folder_of


@pytest.mark.parametrize(("phase", "name", "moment"), TRAINING)
def test_a_training_that_is_killed_and_started_again_ends_as_the_undisturbed_one(
    undisturbed: Undisturbed, tmp_path: Path, phase: str, name: str, moment: Moment
) -> None:
    words = ["train", *EACH_STEP, *CONFIGURATIONS[name], "resume=auto", f"output_dir={tmp_path}/run"]
    statuses = [run(words, tmp_path / "log", each, ranks=ranks_of(name)) for each in (moment, None)]
    assert statuses == [KILLED, 0], (tmp_path / "log").read_text()
    assert differences(tmp_path / "run", undisturbed(name)) == []


@pytest.mark.parametrize("moment", [Moment("validation", 1), Moment("validation", 1, False), Moment("evaluated", 1)])
def test_an_evaluation_that_is_killed_and_started_again_gives_the_same_result(
    undisturbed: Undisturbed, tmp_path: Path, moment: Moment
) -> None:
    words = ["evaluate", f"checkpoint={undisturbed('steps')}/checkpoints/best.ckpt", "workers=0", "pictures=0"]
    words += ["trainer.accelerator=cpu"]
    found, expected = tmp_path / "found", tmp_path / "expected"
    calls = [(found, moment), (found, None), (expected, None)]
    statuses = [run([*words, f"output_dir={folder}"], tmp_path / "log", each) for folder, each in calls]
    assert statuses == [KILLED, 0, 0], (tmp_path / "log").read_text()
    for name in ("metrics.json", "detections.json", "roi_statistics.json"):
        assert json.loads((found / name).read_text()) == json.loads((expected / name).read_text()), name
