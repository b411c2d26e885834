"""The folder of a run: what it does with files that are there, and what it leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import Cli, Train

from r3cnn.cli.earlier_run import set_aside
from r3cnn.cli.folder_lock import LOCK_FILE
from r3cnn.data.loading import ImageError


def test_a_checkpoint_is_evaluated_from_any_folder_and_kept_beside_its_metrics(
    train_tiny: Train, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = train_tiny("trainer.max_steps=1", "trainer.val_check_interval=100", "pictures=0", "data.root=./drawn")
    monkeypatch.chdir(tmp_path / "there")
    evaluate = ("evaluate", f"checkpoint={run}/checkpoints/last.ckpt", "pictures=0")
    cli(*evaluate, f"output_dir={tmp_path}/out")
    assert (tmp_path / "out" / "metrics.json").read_text() == (run / "metrics.json").read_text()
    parts = {"config.yaml", "checkpoints", "detections.json", "metrics.json", "roi_statistics.json"}
    assert parts <= {path.name for path in (tmp_path / "out").iterdir()}
    cli(*evaluate, f"output_dir={tmp_path}/out", "~callbacks.rois")
    assert not (tmp_path / "out" / "roi_statistics.json").exists()
    assert (tmp_path / "out/checkpoints/evaluated.ckpt").read_bytes() == (run / "checkpoints/last.ckpt").read_bytes()
    assert list((tmp_path / "there").iterdir()) == []

    whole = contents(run)
    for image in tmp_path.glob("here/drawn/**/val/*.png"):
        image.write_bytes(b"")
    with pytest.raises(ImageError):
        cli(*evaluate, f"output_dir={run}")
    assert contents(run) == whole  # until there are new results


def test_files_that_are_not_of_the_same_command_are_refused_and_kept(
    train_tiny: Train, trained: Path, cli: Cli, tmp_path: Path
) -> None:
    short = ("trainer.max_steps=1", "trainer.val_check_interval=100", "pictures=0")
    checkpoint, found, mine, run = f"checkpoint={trained}/checkpoints/last.ckpt", *map(tmp_path.joinpath, "fmr")
    (mine / "errors").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    predict = ("predict", checkpoint, f"source={tmp_path}/a.png", f"output_dir={found}")
    for _ in range(2):  # its own results are made anew
        cli(*predict)
    for name in ("config.yaml", "metrics.csv", "errors/errors.json"):
        (mine / name).write_text("mine: true")
    whole = contents(tmp_path)
    for folder in (found, mine):
        with pytest.raises(ValueError, match=r"config\.yaml.* would be replaced: .*name another output_dir"):
            train_tiny(*short, folder=folder)
        with pytest.raises(ValueError, match=r"config\.yaml.* would be replaced: name another output_dir"):
            cli("evaluate", checkpoint, "pictures=0", f"output_dir={folder}")
    with pytest.raises(ValueError, match=r"holds other files \(config\.yaml"):
        cli(*predict[:-1], f"output_dir={mine}")
    assert contents(tmp_path) == whole

    with pytest.raises(FloatingPointError):
        train_tiny("optimizer.lr=1e30", "lr_schedule.warmup_steps=0", "pictures=0", folder=run)
    assert not (run / "checkpoints").exists()
    train_tiny(*short, folder=run)  # what an interrupted run left without a checkpoint is its own


def contents(folder: Path) -> dict[str, bytes]:
    """Files of a run but for its log and lock."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".log" and path.name != LOCK_FILE]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_run_is_replaced_only_when_asked_to_and_once_the_new_one_has_a_checkpoint(
    train_tiny: Train, cli: Cli, tmp_path: Path
) -> None:
    short = ("trainer.max_steps=1", "trainer.val_check_interval=100")
    run = train_tiny(*short, folder=tmp_path / "run")
    for name in ("checkpoints/mine.ckpt", "pictures/mine_loops.png"):
        (run / name).write_text("mine")
    whole = contents(run)

    other = f"{train_tiny(*short, 'pictures=0')}/checkpoints/last.ckpt"
    for overrides in ((), (f"resume={other}",), (f"init={other}",)):
        with pytest.raises(ValueError, match=r"resume=last .* overwrite=true .* another output_dir"):
            train_tiny(*short, *overrides, folder=run)
    for overrides, message in (
        (("overwrite=true", "resume=last"), "overwrite=true starts over, resume=last continues"),
        (("overwrite=true", f"resume={run}/checkpoints/best.ckpt"), "overwrite=true replaces the run"),
        (("overwrite=true", f"init={run}/checkpoints/mine.ckpt"), "mine.ckpt is damaged or no checkpoint"),
    ):
        with pytest.raises(ValueError, match=message):
            train_tiny(*short, *overrides, folder=run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "1")  # it would wait for the first one
        with pytest.raises(ValueError, match="holds a run"):
            train_tiny(*short, folder=run)
    with pytest.raises(FloatingPointError):
        train_tiny("overwrite=true", "optimizer.lr=1e30", "lr_schedule.warmup_steps=0", folder=run)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"holds a run \(checkpoints/best.ckpt.*: name another output_dir"):
        cli("predict", f"checkpoint={other}", f"source={tmp_path}/a.png", f"output_dir={run}")
    with pytest.raises(ValueError, match=r"holds a run \(checkpoints/best.ckpt.*: name another output_dir"):
        cli("evaluate", f"checkpoint={other}", f"output_dir={run}")
    set_aside(run)  # as one that is killed before its first checkpoint leaves it
    with pytest.raises(ValueError, match="holds a run"):
        train_tiny(*short, folder=run)
    assert contents(run) == whole

    init = f"init={run}/checkpoints/best.ckpt"
    train_tiny(*short, "seed=3", "pictures=0", "overwrite=true", init, folder=run)
    assert json.loads((run / "result.json").read_text())["seed"] == 3
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt", "mine.ckpt"]
    pictures = sorted(path.name for path in (run / "pictures").iterdir())
    assert pictures == ["mine_loops.png", "roi_statistics.png", "roi_statistics_train.png", "training_curves.png"]
    assert {Path(name).parts[0] for name in contents(run)} == {Path(name).parts[0] for name in whole}


def test_a_run_that_is_evaluated_in_its_folder_is_still_the_same_run(train_tiny: Train, cli: Cli) -> None:
    short = ("trainer.max_steps=1", "trainer.val_check_interval=100", "pictures=0")
    run = train_tiny(*short)
    config = (run / "config.yaml").read_text()
    for _ in range(2):
        cli("evaluate", f"checkpoint={run}/checkpoints/last.ckpt", "pictures=0", f"output_dir={run}")
    assert (run / "config_train.yaml").read_text() == config
    (run / "result.json").unlink()
    with pytest.raises(ValueError, match=r"resume=auto: .* differs in data.seed"):
        train_tiny(*short, "resume=auto", "seed=3", folder=run)
    train_tiny(*short, "resume=auto", folder=run)
    assert (run / "config.yaml").read_text() == config.replace("resume: null", "resume: auto")
    assert not (run / "config_train.yaml").exists()


def test_the_ap_of_every_loop_and_class_is_in_the_log_and_in_the_table_of_numbers(
    train_tiny: Train, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train_tiny("trainer.max_steps=1", "trainer.val_check_interval=1", "pictures=0")
    printed, text = capfd.readouterr(), (run / "train.log").read_text()
    for title in ("Average precision after each loop", "Average precision per class"):
        assert title in text
        assert title in printed.out
        assert title not in printed.err
    metrics = json.loads((run / "metrics.json").read_text())["per_class"]
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/mask_ap"]]
    found = {name: {kind: rows[-1][f"val/class/{name}/{kind}_ap"] for kind in ("box", "mask")} for name in metrics}
    assert {name: {kind: float(ap) for kind, ap in kinds.items()} for name, kinds in found.items()} == {
        name: {kind: pytest.approx(ap) for kind, ap in kinds.items()} for name, kinds in metrics.items()
    }
