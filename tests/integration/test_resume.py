"""A run that was cut off goes on as if nothing had happened."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
import torch
from killed_runs import KILLED, Moment, differences, run
from tiny_runs import EVERY_STEP, TINY_RUN, Cli, Train

from r3cnn.cli import initial


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["train/loss"]]


def roi_rows(folder: Path, last: int) -> list[dict[str, str]]:
    """What the training epochs' curves of the RoIs say, from the last rows on."""
    with (folder / "metrics.csv").open(newline="") as file:
        kept = [{key: value for key, value in row.items() if "/roi_" in key} for row in csv.DictReader(file)]
    rois = [{key: row[key] for key in sorted(row) if key.startswith("train/")} for row in kept]
    return [row for row in rois if any(row.values())][-last:]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("at_1", "at_3", "at_4", "at_5", "best")]


@pytest.mark.parametrize("name", ["at_2", *SLOW])
def test_a_resumed_run_ends_with_the_same_bits_as_an_undisturbed_one(
    trained: Path, train_tiny: Train, name: str
) -> None:
    resumed = train_tiny(*EVERY_STEP, f"resume={trained}/checkpoints/{name}.ckpt")
    expected, found = weights(trained / "checkpoints/last.ckpt"), weights(resumed / "checkpoints/last.ckpt")
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    losses = {row["step"]: row["train/loss"] for row in rows(trained)}
    assert [row["train/loss"] for row in rows(resumed)] == [losses[row["step"]] for row in rows(resumed)]
    curves = roi_rows(resumed, 9)
    assert curves
    assert curves == roi_rows(trained, len(curves))  # those of the epoch that it was resumed within as well


def test_a_run_that_its_steps_ended_within_an_epoch_goes_on_with_the_rest_of_it(
    trained: Path, train_tiny: Train
) -> None:
    folder = train_tiny(*EVERY_STEP, "trainer.max_steps=2")  # too early for a shorter plan to lower the rate
    train_tiny(*EVERY_STEP, "resume=last", folder=folder)
    expected, found = weights(trained / "checkpoints/last.ckpt"), weights(folder / "checkpoints/last.ckpt")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    assert [row["train/loss"] for row in rows(folder)] == [row["train/loss"] for row in rows(trained)]


# Two batches per optimizer step, and a checkpoint at each validation: after the third batch, and so on.
ACCUMULATED = (
    "trainer.accumulate_grad_batches=2",
    "trainer.max_steps=6",
    "data.batch_size=1",
    "trainer.val_check_interval=3",
    "callbacks.last.every_n_train_steps=null",
    "callbacks.last.filename='at_{step}'",
    "+callbacks.last.save_top_k=-1",
    "+callbacks.last.auto_insert_metric_name=false",
    "pictures=0",
)


def test_a_run_resumed_between_two_optimizer_steps_ends_with_the_same_bits(train_tiny: Train) -> None:
    whole = train_tiny(*ACCUMULATED)
    middle = whole / "checkpoints/at_1.ckpt"
    assert (
        torch.load(middle, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"]
        == 3
    )
    resumed = train_tiny(*ACCUMULATED, f"resume={middle}")
    expected, found = weights(whole / "checkpoints/last.ckpt"), weights(resumed / "checkpoints/last.ckpt")
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    losses = {row["step"]: row["train/loss"] for row in rows(whole)}
    assert {row["step"]: row["train/loss"] for row in rows(resumed)} == {
        step: loss for step, loss in losses.items() if int(step) >= 1
    }


def test_a_run_that_is_resumed_in_its_folder_keeps_one_gapless_table(train_tiny: Train) -> None:
    folder = train_tiny("trainer.max_steps=3")
    train_tiny("trainer.max_steps=6", "resume=last", folder=folder)
    assert [int(row["step"]) for row in rows(folder)] == [0, 1, 2, 3, 4, 5]
    forecast = r"about 0\.\d\d h to the end: \S+ s per step \(1 left\), .*; peak memory \d\.\d\d GiB a rank"
    assert re.search(forecast, (folder / "train.log").read_text())


# A run is killed in the validation that is due at the step of its only checkpoint, at that step's row of metrics.csv,
# as a checkpoint is written, and in the evaluation of the final weights.
KILLS = [
    Moment("validation", 1),
    *(pytest.param(Moment(place, count), marks=pytest.mark.slow) for place, count in (("logging", 2), ("best", 1))),
    pytest.param(Moment("writing", 2), marks=pytest.mark.slow),
]
VALIDATED = (
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "callbacks.last.every_n_train_steps=2",
    "pictures=0",
)


@pytest.fixture(scope="module")
def not_killed(train_tiny: Train) -> Path:
    return train_tiny(*VALIDATED)


@pytest.mark.parametrize("moment", KILLS)
def test_a_run_that_is_killed_and_resumed_makes_up_its_validation_and_ends_as_an_undisturbed_one(
    not_killed: Path, tmp_path: Path, moment: Moment
) -> None:
    words = ["train", *TINY_RUN, *VALIDATED, "resume=auto", f"output_dir={tmp_path}/run"]
    statuses = [run(words, tmp_path / "log", each) for each in (moment, None)]
    assert statuses == [KILLED, 0], (tmp_path / "log").read_text()
    assert differences(tmp_path / "run", not_killed) == []
    run(words, tmp_path / "log")  # its result is known as its own, though JSON has no infinite numbers
    assert "finished already" in (tmp_path / "log").read_text()


def test_a_resumed_run_leaves_nothing_that_speaks_of_its_earlier_part(train_tiny: Train, cli: Cli) -> None:
    folder = train_tiny("trainer.max_steps=1")
    cli("evaluate", f"checkpoint={folder}/checkpoints/last.ckpt", "eval_loops=5", "pictures=3", f"output_dir={folder}")
    cli("analyze", "errors", f"run={folder}")
    assert (folder / "errors/errors.json").is_file()
    train_tiny("trainer.max_steps=2", "resume=last", folder=folder)
    assert [*(folder / "errors").iterdir()] == []
    assert not (folder / "checkpoints/evaluated.ckpt").exists()
    assert sorted(path.name for path in folder.glob("detections*.json")) == [
        "detections.json",
        "detections_loop1.json",
        "detections_loop2.json",
    ]
    assert len([*(folder / "pictures").glob("*_predictions.png")]) == 1
    assert [int(row["step"]) for row in rows(folder)] == [0, 1]


def test_resuming_without_a_checkpoint_says_where_it_was_looked_for(train_tiny: Train, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"resume=last: no checkpoint at .*last\.ckpt"):
        train_tiny("resume=last", folder=tmp_path)


def files(folder: Path) -> dict[str, bytes]:
    """Content of what a run writes, but for its log."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"]
    return {str(path): path.read_bytes() for path in found}


def test_what_a_resumed_run_cannot_take_over_is_refused_before_anything_is_touched(
    trained: Path, train_tiny: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(initial, "advice", lambda weights, num_classes: "advice for 3 classes")
    before = files(trained)
    for overrides, message in (
        (["channels=24"], r"resume=\S+last\.ckpt do not fit this network:\n- \d+ tensors of another shape"),
        (["optimizer=sgd"], r"resume=\S+ was trained by AdamW, this run has SGD"),
        (["data.classes=[circle,triangle,square]"], r"first 'square' where this run has 'triangle', .* another order"),
        (["seed=1"], r"its seed is 0, that of this run 1.*: seed=0 goes on with it"),
        (["data.prepare.train=9"], r"its number of training images is 8, that of this run 9"),
        (["trainer.max_epochs=1"], r"resume=\S+: 2 epochs are done, trainer.max_epochs is 1"),
        (["data.image_range=[0,4095]"], r"data\.image_range=None, this run has \(0\.0, 4095\.0\)"),
        (["trainer.max_steps=5"], r"resume=\S+: 7 steps are done, trainer.max_steps is 5"),
        (["data.std=[1,2,3]"], r"was trained on images of std .* this run has \[1.0, 2.0, 3.0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            train_tiny(*EVERY_STEP, "resume=last", *overrides, folder=trained)
    assert files(trained) == before


def test_a_resumed_run_trains_with_the_optimizer_settings_and_the_batch_size_of_its_own(
    trained: Path, train_tiny: Train
) -> None:
    own = ("optimizer.lr=0.016", "optimizer.factory.weight_decay=0.5", "optimizer.factory.betas=[0.5,0.9]")
    plain = (
        "lr_schedule.warmup_steps=0",
        "lr_schedule.factor=1",
        "data.batch_size=2",
        "trainer.max_steps=4",
        "pictures=0",
    )
    run = train_tiny(*EVERY_STEP, *own, *plain, f"resume={trained}/checkpoints/at_2.ckpt")
    (group,) = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert (group["weight_decay"], tuple(group["betas"])) == (0.5, (0.5, 0.9))
    assert [float(row["train/lr"]) for row in rows(run)] == pytest.approx([0.016 * 2 / 16] * 2)
    assert [row["step"] for row in rows(run)] == ["2", "3"]


def test_resuming_a_checkpoint_of_an_older_format_says_so(trained: Path, train_tiny: Train, tmp_path: Path) -> None:
    content = torch.load(trained / "checkpoints/at_2.ckpt", weights_only=True)
    content["r3cnn"]["format"] = 1
    torch.save(content, tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match=r"old\.ckpt has format 1, this version reads 2"):
        train_tiny(*EVERY_STEP, f"resume={tmp_path}/old.ckpt", folder=tmp_path / "run")
    assert not (tmp_path / "run/metrics.csv").exists()


@pytest.mark.slow
def test_a_copied_run_goes_on_with_its_best_checkpoint_and_speaks_of_no_other_folder(
    train_tiny: Train, tmp_path: Path
) -> None:
    validated = ("trainer.val_check_interval=1.0", "trainer.check_val_every_n_epoch=1", "pictures=0")
    first = train_tiny(*validated, "trainer.max_steps=4", folder=tmp_path / "first")
    best = (first / "checkpoints" / "best.ckpt").read_bytes()
    shutil.copytree(first, tmp_path / "copy")
    shutil.rmtree(first)
    copy = train_tiny(*validated, "trainer.max_steps=7", "resume=last", folder=tmp_path / "copy")
    assert (copy / "checkpoints" / "best.ckpt").read_bytes() == best  # an AP of 0 is no better than the one before
    callbacks = torch.load(copy / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    assert str(tmp_path) not in str(callbacks)


@pytest.mark.slow
def test_a_hostile_checkpoint_removes_nothing_and_takes_no_place_of_lightnings(
    trained: Path, train_tiny: Train, tmp_path: Path
) -> None:
    precious, run = tmp_path / "precious", tmp_path / "run"
    precious.mkdir()
    (precious / "mine.ckpt").write_text("mine")
    shutil.copytree(trained, run)
    hostile = run / "checkpoints" / "hostile.ckpt"
    for change in ({"load_state_dict": 1}, {"ready": "2"}):
        content = torch.load(trained / "checkpoints/at_2.ckpt", weights_only=True)
        content["loops"]["fit_loop"]["epoch_progress"]["current"] |= change
        torch.save(content, hostile)
        with pytest.raises(ValueError, match=r"hostile\.ckpt"):
            train_tiny(*EVERY_STEP, f"resume={hostile}", folder=run)
    content = torch.load(trained / "checkpoints/at_2.ckpt", weights_only=True)
    for name, state in content["callbacks"].items():
        if "Checkpoint" in name:
            folder = f"local://{precious}"
            state |= dict.fromkeys(("best_model_path", "kth_best_model_path", "last_model_path"), folder)
            state |= {"dirpath": str(run / "checkpoints"), "best_k_models": {folder: torch.tensor(-1.0)}}
    torch.save(content, hostile)
    train_tiny(*EVERY_STEP, f"resume={hostile}", folder=run)
    assert (precious / "mine.ckpt").read_text() == "mine"
    assert (run / "result.json").is_file()
