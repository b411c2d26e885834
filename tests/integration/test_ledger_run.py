"""From a training run to its record, and from there to the paper's tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_two_ranks import TWO_RANKS, r3cnn
from tiny_runs import TINY_RUN, Cli

from r3cnn.data.index_cache import digest_of
from r3cnn.reporting.records import Record, read_record
from r3cnn.run_files import RESULT

NAIVE = ("experiment=r3cnn_naive", "scale=demo", *(each for each in TINY_RUN if not each.startswith("experiment=")))
SHORT = ("trainer.max_steps=3", "callbacks.measurements.warm_up_steps=1", "pictures=0", "data.eval_batch_size=1")


@pytest.fixture(scope="module")
def finished(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("naive")
    cli("train", *NAIVE, *SHORT, "seed=5", f"output_dir={folder}")
    return folder


@pytest.fixture(scope="module")
def record(finished: Path) -> Record:
    return read_record(finished)


def test_the_record_says_what_ran_and_holds_the_metrics_as_they_were_written(finished: Path, record: Record) -> None:
    assert (record.name, record.scale, record.seed, record.ranks) == ("r3cnn_naive", "demo", 5, 1)
    assert record.metrics == json.loads((finished / "metrics.json").read_text())
    assert [*record.metrics["loops"]] == ["1", "2", "3"]
    assert record.config["seed"] == 5
    assert record.config["output_dir"] == str(finished)
    assert "seed=5" in record.overrides
    assert not [*finished.glob(f".{RESULT}*")]


def test_the_record_names_the_data_by_content(record: Record) -> None:
    for facts, images in ((record.data.train, 8), (record.data.val, 3)):
        content = json.loads(Path(facts.file).read_text())
        assert facts.images == images == len(content["images"])
        assert facts.objects == sum(not each["iscrowd"] for each in content["annotations"])
        assert facts.digest == digest_of(Path(facts.file))


def test_the_record_counts_parameters_and_the_size_of_the_checkpoint(finished: Path, record: Record) -> None:
    content = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    weights = content["state_dict"].values()
    assert record.parameters.total == sum(each.numel() for each in weights)  # group norm has no buffers
    moments = content["optimizer_states"][0]["state"].values()
    kept = [*weights, *(each for state in moments for each in state.values() if isinstance(each, torch.Tensor))]
    assert record.checkpoint_mib == pytest.approx(sum(each.nbytes for each in kept) / 2**20)


def test_the_record_tells_speed_memory_and_balance(finished: Path, record: Record) -> None:
    speed = record.images_per_second
    assert speed.train is not None
    assert speed.eval is not None
    assert 0 < speed.train < 1000
    assert 0 < speed.eval < 1000
    seconds = record.seconds
    assert 0 < (seconds["train"] or 0) < (seconds["total"] or 0)
    assert record.memory_kind == "resident"
    assert (record.train_memory_bytes or 0) > 100 * 2**20
    assert [*record.roi_balance] == ["train", "val"]
    assert [*record.roi_balance["train"]] == ["1", "2", "3"]
    header = (finished / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"speed/train_images_per_second", "speed/eval_images_per_second", "memory/peak_gib"} <= {*header}


def test_the_report_puts_the_run_into_its_rows_beside_the_papers_numbers(
    cli: Cli, finished: Path, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("report", f"runs=[{finished}]", "table=table2", f"output_dir={tmp_path}")
    shown = capsys.readouterr().out
    ours = [record.metrics["loops"][loop]["box"]["ap"] for loop in "123"]
    text = (tmp_path / "report.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ") and "R3-CNN (naive)" in line]
    rows = [[cell.split("<sup>")[0].strip() for cell in line.split("|")[1:-1]] for line in lines[:5]]
    assert [row[2] for row in rows] == ["1", "1", "1", "not run", "not run"]
    assert [row[6] for row in rows[:3]] == [f"{100 * (ap or 0):.1f}" for ap in ours]
    assert [row[7] for row in rows] == ["37.9", "40.5", "40.9", "40.9", "40.9"]
    assert "cannot be compared" in shown
    assert "BAP: ours" in text
    assert "BAP: difference" not in text
    assert r"\begin{tabular}" in (tmp_path / "report.tex").read_text()
    assert "Table 2" in (tmp_path / "report.html").read_text()


def test_a_run_that_replaces_another_is_not_finished_until_it_ends(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / RESULT).write_text("{}")

    def fail(*arguments: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("r3cnn.cli.train.write_outcome", fail)
    with pytest.raises(RuntimeError, match="the disk is full"):
        cli("train", *NAIVE, *SHORT, "trainer.max_steps=1", f"output_dir={tmp_path}", "overwrite=true")
    assert not (tmp_path / RESULT).exists()


@pytest.mark.slow
def test_two_ranks_write_one_record_of_both(tmp_path: Path) -> None:
    settings = (*NAIVE, *SHORT, "data.batch_size=2", "trainer.max_steps=4", *TWO_RANKS)
    r3cnn("train", *settings, f"output_dir={tmp_path}")
    record = read_record(tmp_path)
    assert record.ranks == 2
    seconds, speed = record.seconds["train"], record.images_per_second.train
    assert speed is not None
    images = speed * (seconds or 0)
    assert images == pytest.approx(round(images))
    assert 2 * 2 < round(images) <= 2 * 2 * 2  # two steps of at most two images, on two ranks and not on one
