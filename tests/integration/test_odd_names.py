"""Class and folder names that mean something to one of the libraries, through the whole program and back."""

from __future__ import annotations

import csv
import html
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import TINY_RUN, Cli
from wandb_files import WandbFile, environment, read_run, runs_in

from r3cnn.data.shapes import write_shapes
from r3cnn.names import metric_key

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
NAMES = (
    *("[/x]", "[/bold]", "[red]a", ":smile:"),  # rich
    *("$", "US$ \\bad{$", "a_b^c"),  # matplotlib, LaTeX
    *("???", "${x}", "${oc.env:HOME}", "\\${y}", "1", "1e5", "null", "yes"),  # OmegaConf, YAML
    *("<script>alert(1)</script>", "&lt;", "#", "-- ,,"),  # HTML, Markdown, LaTeX
    *("a/b", "/dataloader_idx_0", "val/class/x/box_ap", ".hidden", "_under", "100%"),  # keys of metrics, files
    *("line\nbreak", "\x1b[31mred", "half \ud83d", "\u202egnp", " blank ", "long " * 100),
    *("猫と犬", "한국어", "قط", "🐈", "a,b=[c]", "'quoted\""),
)
RUN_NAME = "[bold] $ \\bad{$ <b>&lt; 猫 -- #"


@dataclass(frozen=True)
class Artefacts:
    """What was written for a run whose pictures cannot be, for its evaluation, whose can, and about both."""

    data: Path
    run: Path
    evaluation: Path
    others: Path
    shown: str
    said: str
    wandb: WandbFile
    media: Path  # of Weights & Biases


def write_data(folder: Path) -> list[str]:
    """A drawn data set whose objects take turns at the names; gives the settings to use it."""
    write_shapes(folder, train=8, val=12, seed=0)
    for split in ("train", "val"):
        file = folder / "annotations" / f"instances_{split}.json"
        content = json.loads(file.read_text())
        content["categories"] = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
        for position, annotation in enumerate(content["annotations"]):
            annotation["category_id"] = 1 + position % len(NAMES)
        file.write_text(json.dumps(content))
    places = [
        f"data.{split}.{key}"
        for split in ("train", "val")
        for key in (f"images={split}", f"annotations=annotations/instances_{split}.json")
    ]
    return ["data=custom", f"data.root={folder}", *places]


@contextmanager
def logged_to(text: io.StringIO) -> Iterator[None]:
    """Keeps what our loggers say."""
    handler = logging.StreamHandler(text)
    logging.getLogger("r3cnn").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("r3cnn").removeHandler(handler)


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Artefacts:
    root = tmp_path_factory.mktemp("names")
    run, evaluation, others = root / RUN_NAME, root / "evaluation", root / "others"
    data = write_data(root / "data")
    run.mkdir()
    (run / "pictures").symlink_to(root / "nowhere")  # so that no picture can be written
    tiny = [each for each in TINY_RUN if not each.startswith("data.prepare")]
    loggers = ("logger=csv_wandb", "+logger.tensorboard._target_=r3cnn.training.loggers.TensorBoardLogger")
    sent = ("logger.wandb.pictures=1", "logger.wandb.panels=1", "logger.wandb.score_threshold=0.0")
    output = (f"output_dir='{run}'", f"+logger.tensorboard.folder='{run}'")
    said = io.StringIO()
    with environment(), logged_to(said):
        cli("train", *tiny, *data, *loggers, *sent, *output, "trainer.max_steps=2")
    with redirect_stdout(io.StringIO()) as shown:
        cpu = ("trainer.accelerator=cpu", "workers=0")
        cli("evaluate", f"checkpoint='{run}/checkpoints/last.ckpt'", f"output_dir={evaluation}", *cpu, "pictures=2")
        common = (f"checkpoint='{run}/checkpoints/last.ckpt'", "device=cpu")
        cli("predict", *common, f"source={root}/data/val", f"output_dir={others}/predict", "score_threshold=0.01")
        runs = f"runs=['{run}',{evaluation}]"
        cli("report", runs, f"output_dir={others}/report", "significance.resamples=0", "html.pictures.images=1")
        cli("analyze", "errors", f"run={evaluation}")
        cli("analyze", "rois", runs, "split=val", f"output_dir={others}/rois")
        cli("data", "check", *data, f"output_dir={others}/check", "data.workers=0")
        cli("data", "browse", *data, f"output_dir={others}", "data.workers=0", "count=2")
    (sent_run,) = runs_in(run)
    said_text = said.getvalue()
    return Artefacts(
        root / "data", run, evaluation, others, shown.getvalue(), said_text, read_run(sent_run), sent_run / "files"
    )


def content_of(path: Path) -> Any:
    return json.loads(path.read_text())


def test_results_are_there_though_no_picture_could_be_written_and_each_one_is_named(artefacts: Artefacts) -> None:
    assert [*content_of(artefacts.run / "result.json")["metrics"]["per_class"]] == [*NAMES]
    assert content_of(artefacts.run / "detections.json")
    for part in ("training_curves.png", "roi_statistics.png", "pictures of validation images"):
        assert len(re.findall(f"left out {part}: FileExistsError", artefacts.said)) == 1
    assert (artefacts.evaluation / "pictures" / "roi_statistics.png").is_file()
    assert len([*(artefacts.evaluation / "pictures").glob("*_predictions.png")]) == 2


def test_names_are_the_same_in_every_file_of_a_run(artefacts: Artefacts) -> None:
    for folder in (artefacts.run, artefacts.evaluation):
        assert [*content_of(folder / "metrics.json")["per_class"]] == [*NAMES]
        assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]["classes"] == [*NAMES]
        rois = content_of(folder / "roi_statistics.json")["loops"]["1"]["per_class"]
        assert [*rois] == [*NAMES]
    for name in ("best", "last"):
        kept = torch.load(artefacts.run / "checkpoints" / f"{name}.ckpt", weights_only=True)["r3cnn"]
        assert kept["classes"] == kept["data"]["classes"] == [*NAMES]
    assert content_of(artefacts.run / "result.json")["config"]["data"]["classes"] == [*NAMES]
    assert content_of(artefacts.evaluation / "errors" / "errors.json")["classes"] == [*NAMES]
    assert [*content_of(artefacts.others / "check" / "check.json")["train"]["statistics"]["per_class"]] == [*NAMES]


def test_detections_of_evaluation_and_prediction_speak_of_the_ids_of_these_names(artefacts: Artefacts) -> None:
    for path in (artefacts.evaluation / "detections.json", artefacts.others / "predict" / "detections.json"):
        ids = {entry["category_id"] for entry in content_of(path)}
        assert ids
        assert ids <= {*range(1, len(NAMES) + 1)}


def test_every_class_has_curves_of_its_own_in_every_logger(artefacts: Artefacts) -> None:
    keys = {f"val/class/{metric_key(name)}/{kind}_ap" for name in NAMES for kind in ("box", "mask")}
    assert len(keys) == 2 * len(NAMES)
    with (artefacts.run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        assert keys <= {*next(csv.reader(file))}
    events = EventAccumulator(str(artefacts.run / "tensorboard")).Reload()
    assert keys <= {*events.Tags()["scalars"]}
    assert keys <= artefacts.wandb.keys


def test_weights_and_biases_is_sent_the_names_as_they_are(artefacts: Artefacts) -> None:
    sent = [name.replace("\ud83d", "\ufffd") for name in NAMES]  # the library's own, for what UTF-8 cannot hold
    assert artefacts.wandb.config["data"]["classes"] == sent  # type: ignore[index]
    table = content_of(artefacts.media / str(artefacts.wandb.last("tables/ap_per_class")["path"]))
    assert [row[0] for row in table["data"]] == [*NAMES]
    (panel,) = (key for key in artefacts.wandb.keys if key.startswith("boxes_and_masks/"))
    boxes = content_of(artefacts.media / artefacts.wandb.last(panel)["boxes"]["found"]["path"])  # type: ignore[index]
    assert [*boxes["class_labels"].values()] == ["background", *NAMES]
    assert artefacts.wandb.exit_code == 0


def test_the_terminal_shows_names_as_they_are_and_nothing_of_them_acts_on_it(artefacts: Artefacts) -> None:
    for name in (
        "[/x]",
        "[red]a",
        ":smile:",
        "US$ \\bad{$",
        "${oc.env:HOME}",
        "猫と犬",
        "line\\nbreak",
        "\\x1b[31mred",
    ):
        assert f" {name} " in artefacts.shown
    assert "\x1b" not in artefacts.shown


def test_reports_name_the_run_as_it_is(artefacts: Artefacts) -> None:
    report = artefacts.others / "report"
    page = (report / "report.html").read_text(encoding="utf-8")
    assert html.escape(RUN_NAME, quote=False) in page
    assert "<b>&lt;" not in page
    text = (report / "report.md").read_text(encoding="utf-8")
    assert r"\[bold\] \$ \\bad{\$ \<b\>\&lt; 猫 -- \#" in text


def test_pictures_show_what_was_found_and_all_of_them_can_be_opened(artefacts: Artefacts) -> None:
    folders = (artefacts.evaluation / "pictures", artefacts.evaluation / "errors", artefacts.others)
    pictures = [path for folder in folders for path in folder.rglob("*.png")]
    assert len(pictures) > 20
    assert all(min(Image.open(path).size) > 60 for path in pictures)
