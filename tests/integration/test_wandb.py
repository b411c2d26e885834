"""What a Weights & Biases run holds, read back from the file that `wandb sync` sends."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from loopback_wandb import listening
from PIL import Image
from tiny_runs import TINY_RUN, Cli
from wandb_files import WandbFile, environment, read_run, runs_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SECRET = "0123456789abcdef" * 2 + "feedf00d"
LOOPS = ("loop1", "loop2", "loop3")
SENT = ("logger=csv_wandb", "logger.wandb.pictures=2", "logger.wandb.panels=1", "logger.wandb.score_threshold=0.0")
WORKSPACE = Path(__file__).parents[2] / "experiments" / "wandb" / "workspace.py"


@dataclass(frozen=True)
class Sent:
    """A run that was begun, continued with checkpoints kept, and evaluated."""

    folder: Path
    begun: WandbFile
    continued: WandbFile
    evaluated: WandbFile
    files: Path  # of the continued part


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> Sent:
    folder, evaluation = tmp_path_factory.mktemp("sent"), tmp_path_factory.mktemp("evaluated")
    settings = (*TINY_RUN, *SENT, f"output_dir={folder}", "sweep_name=table9", "logger.wandb.tags=[mine]")
    with environment(SOME_SERVICE_TOKEN=SECRET):
        cli("train", *settings, "trainer.max_steps=2", "logger.wandb.pictures=0", "logger.wandb.panels=0")
    with environment(WANDB_API_KEY=SECRET, WANDB_MODE="offline"):
        cli("train", *settings, "resume=last", "logger.wandb.checkpoints=true")
    call = (f"checkpoint={folder}/checkpoints/last.ckpt", f"output_dir={evaluation}", "trainer.accelerator=cpu")
    with environment():
        cli("evaluate", *call, "workers=0", "pictures=0", "logger=wandb", "eval_loops=4", "logger.wandb.panels=0")
    begun, continued = runs_in(folder)
    return Sent(folder, read_run(begun), read_run(continued), read_run(runs_in(evaluation)[0]), continued / "files")


def test_a_run_says_what_it_is(sent: Sent) -> None:
    run = sent.begun.run
    assert (run.project, run.run_group, run.job_type) == ("r3cnn", "table9", "train")
    assert run.display_name == "demo-seed0"
    assert {"demo", "table9", "mine", "loops-3", "heads-1", "thresholds-rising", "feedback-released"} <= {*run.tags}


def test_the_resolved_configuration_is_that_of_the_folder(sent: Sent) -> None:
    config = sent.continued.config
    assert config["experiment"] == "demo"
    assert config["recursion"]["heads"] == [0, 0, 0]
    assert config["output_dir"] == str(sent.folder)
    assert config["trainer"]["max_steps"] == 4
    assert "${" not in json.dumps(config)


def test_no_secret_of_the_environment_is_written(sent: Sent) -> None:
    files = [path for path in (sent.folder / "wandb").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_a_continued_run_keeps_its_id_and_goes_on_where_it_stopped(sent: Sent) -> None:
    assert sent.begun.run.run_id == sent.continued.run.run_id
    assert sent.begun.values("train/loss") != []
    steps = [
        [row["trainer/global_step"] for row in part.history if "train/loss" in row]
        for part in (sent.begun, sent.continued)
    ]
    assert steps == [[0, 1], [2, 3]]
    assert (sent.begun.exit_code, sent.continued.exit_code) == (0, 0)


def test_everything_is_drawn_against_the_optimizer_step_and_the_best_ap_is_kept(sent: Sent) -> None:
    metrics = sent.continued.metrics
    assert metrics["*"].step_metric == "trainer/global_step"
    for place in ("val/", *(f"val/{loop}/" for loop in LOOPS)):
        for kind in ("box_ap", "mask_ap", "box_ap50"):
            assert metrics[place + kind].step_metric == "trainer/global_step"
            assert metrics[place + kind].summary.max
    assert not metrics["*"].summary.max
    assert metrics["by_loop/mask_ap"].step_metric == "by_loop/loop"
    for row in sent.continued.history:
        assert ("trainer/global_step" in row) != ("by_loop/loop" in row)


def test_losses_and_ap_of_every_loop_are_there(sent: Sent) -> None:
    expected = {f"train/{loop}/{part}" for loop in LOOPS for part in ("cls", "box", "mask")}
    expected |= {f"val/{loop}/{kind}_ap" for loop in LOOPS for kind in ("box", "mask")}
    expected |= {"train/loss", "train/lr", "train/rpn/objectness", "val/mask_ap", "val/class/circle/mask_ap"}
    expected |= {"speed/train_images_per_second", "speed/eval_images_per_second", "memory/peak_gib"}
    assert expected - sent.continued.keys == set()


def test_the_summary_is_the_result_of_the_final_weights(sent: Sent) -> None:
    written, summary = json.loads((sent.folder / "metrics.json").read_text()), sent.continued.summary
    for kind in ("box", "mask"):
        assert summary[f"final/{kind}_ap"] == pytest.approx(written[kind]["ap"])
        for loop in LOOPS:
            assert summary[f"final/{loop}/{kind}_ap"] == pytest.approx(written["loops"][loop[-1]][kind]["ap"])
    assert summary["train/loss"] == pytest.approx(sent.continued.values("train/loss")[-1])
    assert summary["val/box_ap"]["max"] == pytest.approx(max(sent.continued.values("val/box_ap")))
    assert summary["parameters/trainable"] <= summary["parameters/total"]
    assert summary["parameters/total"] == json.loads((sent.folder / "result.json").read_text())["parameters"]["total"]


@pytest.mark.parametrize(("split", "name"), [("train", "roi_statistics_train.json"), ("val", "roi_statistics.json")])
def test_histograms_of_the_rois_are_the_counts_of_every_loop(sent: Sent, split: str, name: str) -> None:
    counts = json.loads((sent.folder / name).read_text())
    for loop in LOOPS:
        histogram = sent.continued.last(f"rois/{split}/{loop}")
        assert histogram["_type"] == "histogram"
        assert histogram["values"] == counts["loops"][loop[-1]]["histogram"]
        assert histogram["bins"] == pytest.approx(counts["bin_edges"])


def test_ap_over_the_loops_is_a_curve_of_its_own(sent: Sent) -> None:
    loops = json.loads((sent.folder / "metrics.json").read_text())["loops"]
    rows = [row for row in sent.continued.history if "by_loop/mask_ap" in row]
    assert [row["by_loop/loop"] for row in rows] == [1, 2, 3]
    assert [row["by_loop/mask_ap"] for row in rows] == pytest.approx([loops[loop]["mask"]["ap"] for loop in "123"])


def test_tables_hold_the_ap_of_classes_and_of_loops(sent: Sent) -> None:
    written = json.loads((sent.folder / "metrics.json").read_text())
    classes = json.loads((sent.files / str(sent.continued.last("tables/ap_per_class")["path"])).read_text())
    assert classes["columns"] == ["class", "box_ap", "mask_ap"]
    assert classes["data"] == [[name, ap["box"], ap["mask"]] for name, ap in written["per_class"].items()]
    loops = json.loads((sent.files / str(sent.continued.last("tables/ap_per_loop")["path"])).read_text())
    place = loops["columns"].index("mask_ap50")
    assert [row[place] for row in loops["data"]] == [written["loops"][loop]["mask"]["ap50"] for loop in "123"]


def test_every_image_has_an_overlay_per_loop_and_its_strip(sent: Sent) -> None:
    names = sorted(key for key in sent.continued.keys if key.startswith("overlays/"))
    assert len(names) == 2
    for name in names:
        overlays = sent.continued.last(name)
        assert (overlays["count"], overlays["captions"]) == (3, ["loop 1", "loop 2", "loop 3"])
        drawn = [np.asarray(Image.open(sent.files / path)) for path in overlays["filenames"]]
        assert {image.shape for image in drawn} == {drawn[0].shape}
    strips = [key for key in sent.continued.keys if key.startswith("loop_strips/")]
    assert len(strips) == 1  # the run drew one picture itself
    assert (sent.files / sent.continued.last(strips[0])["path"]).is_file()


def test_a_panel_has_boxes_and_masks_found_and_true(sent: Sent) -> None:
    (name,) = (key for key in sent.continued.keys if key.startswith("boxes_and_masks/"))
    panel = sent.continued.last(name)
    size = (panel["height"], panel["width"])
    names = json.loads((sent.folder / "metrics.json").read_text())["per_class"]
    for side in ("found", "true"):
        boxes = json.loads((sent.files / panel["boxes"][side]["path"]).read_text())
        assert boxes["class_labels"] == {"0": "background", **{str(k): name for k, name in enumerate(names, start=1)}}
        assert len(boxes["box_data"]) >= 1
        for box in boxes["box_data"]:
            place = box["position"]
            assert 0 <= place["minX"] <= place["maxX"] <= size[1]
            assert 0 <= place["minY"] <= place["maxY"] <= size[0]
            assert box["domain"] == "pixel"
            assert 1 <= box["class_id"] <= len(names)
        mask = np.asarray(Image.open(sent.files / panel["masks"][side]["path"]))
        assert mask.shape == size
        assert 1 <= mask.max() <= len(names)
    found = json.loads((sent.files / panel["boxes"]["found"]["path"]).read_text())["box_data"]
    scores = [box["scores"]["score"] for box in found]
    assert scores == sorted(scores, reverse=True)


def test_checkpoints_are_kept_only_where_asked_for(sent: Sent) -> None:
    begun, continued = (
        [each for each in part.artifacts if each.type == "model"] for part in (sent.begun, sent.continued)
    )
    assert begun == []
    (artifact,) = continued
    assert sorted(entry.path for entry in artifact.manifest.contents) == ["best.ckpt", "last.ckpt"]


def test_an_evaluation_is_a_run_of_its_own_in_the_group_of_its_training(sent: Sent) -> None:
    run, keys = sent.evaluated.run, sent.evaluated.keys
    assert (run.job_type, run.run_group) == ("evaluate", "table9")
    assert run.run_id != sent.begun.run.run_id
    assert {"eval-loops-4", "loops-3"} <= {*run.tags}
    assert "final/loop4/mask_ap" in sent.evaluated.summary
    assert "rois/val/loop4" in keys
    assert not any(key.startswith(("train/", "boxes_and_masks/")) for key in keys)


def test_every_name_in_the_dashboard_is_one_that_a_run_has(sent: Sent) -> None:
    source = spec_from_file_location("workspace", WORKSPACE)
    assert source is not None
    assert source.loader is not None
    workspace = module_from_spec(source)
    source.loader.exec_module(workspace)
    known = sent.continued.keys | sent.continued.summary.keys()
    shown = workspace.names_shown()
    assert len(shown) > 20
    assert shown - known == set()


def test_the_library_reads_the_file_and_sends_all_of_it(sent: Sent, tmp_path: Path) -> None:
    folder = tmp_path / sent.files.parent.name
    shutil.copytree(sent.files.parent, folder)
    with listening() as received:
        variables = {"WANDB_BASE_URL": received.url, "WANDB_API_KEY": "0" * 40, "NETRC": os.devnull}
        environment = {**os.environ, **variables, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        environment.pop("WANDB_SERVICE", None)  # of a run in this process, which may be over
        command = [sys.executable, "-m", "wandb", "sync", "--yes", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, history = received.runs[0], received.lines["wandb-history.jsonl"]
    assert (first["name"], first["groupName"], first["jobType"]) == (sent.begun.run.run_id, "table9", "train")
    assert {"loops-3", "mine"} <= {*first["tags"]}
    assert len(history) == len(sent.continued.history)
    assert {key for line in history for key in json.loads(line)} >= {"val/loop3/mask_ap", "rois/train/loop2"}
    media = {path.relative_to(sent.files).as_posix(): path.read_bytes() for path in sent.files.glob("media/**/*.*")}
    assert len(media) > 5
    assert {name: received.uploads.get(name) for name in media} == media
    assert SECRET.encode() not in b"".join(received.uploads.values())
