"""What runs leave behind about their loops, and what `r3cnn analyze` makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny_runs import EVERY_STEP, Cli, Train

from r3cnn.evaluation.error_report import ErrorReport
from r3cnn.evaluation.metrics_format import RoiReport


def rois(folder: Path, split: str = "") -> RoiReport:
    return json.loads((folder / f"roi_statistics{split}.json").read_text())


@pytest.fixture(scope="module")
def evaluated(trained: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with one loop more than trained."""
    folder = tmp_path_factory.mktemp("evaluated")
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    cli("evaluate", checkpoint, "eval_loops=4", "pictures=0", f"output_dir={folder}")
    return folder


def test_training_and_validation_count_the_rois_of_every_loop(trained: Path) -> None:
    training, validation = rois(trained, "_train"), rois(trained)
    assert training["images"] in (8 + 8 + 2, 8 + 8 + 3)  # two whole epochs, and a batch of the third
    assert validation["images"] == 3
    assert [loop["iou_threshold"] for loop in training["loops"].values()] == [0.5, 0.6, 0.7]
    for report in (training, validation):
        assert all(sum(loop["histogram"]) == loop["rois"] > 0 for loop in report["loops"].values())
        assert list(report["loops"]["1"]["per_class"]) == ["circle", "square", "triangle"]
    header = (trained / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loop1/roi_balance", "train/loop3/roi_iou_gain", "val/loop2/roi_share_worse"} <= set(header)
    assert (trained / "pictures/roi_statistics_train.png").is_file()
    assert (trained / "pictures/roi_statistics.png").is_file()


@pytest.mark.parametrize("name", ["at_2", "at_3"])  # within an epoch, and at the end of one
def test_a_resumed_run_counts_what_an_undisturbed_one_counts(trained: Path, train_tiny: Train, name: str) -> None:
    resumed = train_tiny(*EVERY_STEP, f"resume={trained}/checkpoints/{name}.ckpt", "pictures=0")
    assert rois(resumed, "_train") == rois(trained, "_train")


def test_without_the_callback_nothing_is_counted(train_tiny: Train) -> None:
    folder = train_tiny("trainer.max_steps=1", "~callbacks.rois", "pictures=0")
    assert (folder / "metrics.json").is_file()
    assert not [*folder.glob("roi_statistics*")]


def test_evaluation_counts_its_own_loops_and_keeps_what_each_of_them_found(trained: Path, evaluated: Path) -> None:
    report = rois(evaluated)
    assert [loop["iou_threshold"] for loop in report["loops"].values()] == [0.5, 0.6, 0.7, 0.7]
    assert {loop: report["loops"][loop] for loop in "123"} == rois(trained)["loops"]
    files = [evaluated / f"detections_loop{loop}.json" for loop in (1, 2, 3)]
    assert json.loads(files[2].read_text()) == json.loads((trained / "detections.json").read_text())
    assert all(file.is_file() for file in files)
    assert not (evaluated / "detections_loop4.json").exists()


def test_an_evaluation_with_fewer_loops_leaves_no_detections_of_more(trained: Path, cli: Cli, tmp_path: Path) -> None:
    call = ("evaluate", f"checkpoint={trained}/checkpoints/last.ckpt", "pictures=0", f"output_dir={tmp_path}")
    cli(*call, "eval_loops=3")
    cli("analyze", "errors", f"run={tmp_path}")
    cli(*call, "eval_loops=2")
    assert not [*(tmp_path / "errors").iterdir()]
    assert sorted(path.name for path in tmp_path.glob("detections*.json")) == [
        "detections.json",
        "detections_loop1.json",
    ]


def test_without_the_detections_of_every_loop_there_is_an_error_that_says_how_to_get_them(
    trained: Path, cli: Cli, tmp_path: Path
) -> None:
    call = (f"checkpoint={trained}/checkpoints/last.ckpt", "evaluation.save_loops=false", "pictures=0")
    cli("evaluate", *call, f"output_dir={tmp_path}")
    assert [path.name for path in tmp_path.glob("detections*.json")] == ["detections.json"]
    with pytest.raises(FileNotFoundError, match=r"has no detections_loop1\.json.*save_loops=true"):
        cli("analyze", "errors", f"run={tmp_path}")


def test_figure_2_is_drawn_from_several_runs_and_leaves_the_statistics_of_a_run_in_the_folder_alone(
    trained: Path, evaluated: Path, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [rois(trained), rois(evaluated)]
    cli("analyze", "rois", f"runs=[{trained},{evaluated}]", "split=val", f"output_dir={evaluated}")
    assert (evaluated / "roi_histograms.png").stat().st_size > 10_000
    assert list(json.loads((evaluated / "rois.json").read_text()).values()) == expected
    assert rois(evaluated) == expected[1]
    assert "balance" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["runs=[]"], "runs is empty"),
        (["split=test", "runs=[here]"], "split is 'test': one of train, val is needed"),
        (["runs=[.,.]"], "runs names a folder twice"),
        (["runs=[.]"], r"roi_statistics_train\.json does not exist"),
        (["runs=here"], "runs has here: no folder of that name"),
    ],
)
def test_runs_that_cannot_be_drawn_are_refused_with_a_reason(cli: Cli, overrides: list[str], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        cli("analyze", "rois", *overrides)


def errors(folder: Path) -> ErrorReport:
    return json.loads((folder / "errors.json").read_text())


def test_errors_of_every_loop_start_from_the_ap_of_the_evaluation(
    evaluated: Path, cli: Cli, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("analyze", "errors", f"run={evaluated}")
    report, metrics = errors(evaluated / "errors"), json.loads((evaluated / "metrics.json").read_text())
    for kind in ("box", "mask"):
        assert list(report[kind]) == ["1", "2", "3", "4"]
        for loop, found in report[kind].items():
            for iou, name in (("0.5", "ap50"), ("0.75", "ap75")):
                assert found["at_iou"][iou]["ap"] == pytest.approx(metrics["loops"][loop][kind][name], abs=1e-12)
            assert (found["at_iou"]["0.5"]["changes"] is None) == (loop == "1")
            classes = {name: values["ap"] for name, values in found["per_class"].items()}
            if loop == "4":
                assert classes == {name: values[kind] for name, values in metrics["per_class"].items()}
    written = sorted(path.name for path in (evaluated / "errors").iterdir())
    pictures = ["confusion_box.png", "confusion_mask.png", "errors.png", "precision_recall.png"]
    assert written == [*pictures[:2], "errors.json", *pictures[2:]]
    assert "repaired (+) and broken (-)" in capsys.readouterr().out


def test_detections_from_anywhere_are_analysed_against_their_annotations(
    evaluated: Path, cli: Cli, tmp_path: Path
) -> None:
    data = OmegaConf.load(evaluated / "config.yaml").data
    files = f"detections=[{evaluated}/detections_loop1.json,{evaluated}/detections.json]"
    annotations = f"annotations={Path(data.root) / data.val.annotations}"
    cli("analyze", "errors", files, annotations, "foreground_ious=[0.6]", f"output_dir={tmp_path}")
    cli("analyze", "errors", f"run={evaluated}", "foreground_ious=[0.6]", f"output_dir={tmp_path}/whole")
    some, whole = errors(tmp_path)["mask"], errors(tmp_path / "whole")["mask"]
    assert [some["1"]["at_iou"], some["2"]["at_iou"]["0.6"]["gains"]] == [
        whole["1"]["at_iou"],
        whole["4"]["at_iou"]["0.6"]["gains"],
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "name a run"),
        (["run=nowhere"], r"run=nowhere: no such folder"),
        (["detections=a.json", "annotations=b.json"], r"a\.json does not exist"),
        (
            ["run=nowhere", "foreground_ious=[0.52]"],
            r"foreground_ious must be some of 0\.50, 0\.55.*each once, got \[0\.52\]",
        ),
        (["run=nowhere", "foreground_ious=[0.5,0.5]"], r"foreground_ious must be some of .*got \[0.5, 0.5\]"),
        (["run=nowhere", "background_iou=0.6"], r"background_iou must be in \(0, 0\.5\], got 0\.6"),
    ],
)
def test_what_cannot_be_analysed_is_refused_with_a_reason(cli: Cli, overrides: list[str], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        cli("analyze", "errors", *overrides)


def test_a_run_that_saw_a_part_of_the_images_is_judged_on_that_part(trained: Path, cli: Cli, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    limit = ("trainer.limit_val_batches=1", "eval_batch_size=1", "pictures=0")
    cli("evaluate", checkpoint, *limit, f"output_dir={tmp_path}")
    cli("analyze", "errors", f"run={tmp_path}")
    assert errors(tmp_path / "errors")["images"] == 1
    in_image = sum(errors(tmp_path / "errors")["box"]["1"]["at_iou"]["0.5"]["objects"].values())
    for name in ("detections.json", "detections_loop1.json", "detections_loop2.json"):
        (tmp_path / name).write_text("[]")
    cli("analyze", "errors", f"run={tmp_path}")
    report = errors(tmp_path / "errors")
    assert report["images"] == 1  # though nothing was found there
    objects = report["box"]["1"]["at_iou"]["0.5"]["objects"]
    assert objects["missed"] == sum(objects.values()) == in_image > 0
    (tmp_path / "image_ids.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"image_ids\.json, the images that were looked at: evaluate anew"):
        cli("analyze", "errors", f"run={tmp_path}")


def find_some_objects(annotations: Path, images: Sequence[int], folder: Path) -> None:
    """Puts detections into a run: later loops find more of the objects of the images, one box in three beside them."""
    truth = [one for one in json.loads(annotations.read_text())["annotations"][::-1] if one["image_id"] in images]
    found = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "bbox": [one["bbox"][0] + (0 if place % 3 < 2 else 0.4 * one["bbox"][2]), *one["bbox"][1:]],
            "segmentation": one["segmentation"],
            "score": 0.9 - 0.01 * place,
        }
        for place, one in enumerate(truth)
    ]
    for name, count in {"_loop1": len(found) - 2, "_loop2": len(found) - 1, "": len(found)}.items():
        (folder / f"detections{name}.json").write_text(json.dumps(found[:count]))


def coco_ap(annotations: Path, detections: Path, images: Sequence[int], kind: str) -> tuple[list[float], list[float]]:
    """AP at IoU 0.5 and 0.75, and AP of each class, by pycocotools."""
    truth = COCO(str(annotations))
    judge = COCOeval(truth, truth.loadRes(str(detections)), {"box": "bbox", "mask": "segm"}[kind])
    judge.params.imgIds = list(images)
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 2]  # (thresholds, recalls, classes)
    by_class = [p[p >= 0].mean() if (p >= 0).any() else None for p in np.moveaxis(precision, 2, 0)]
    at = [precision[place][precision[place] >= 0].mean() for place in (0, 5)]
    return at, by_class


def test_objects_of_images_that_the_data_set_leaves_out_do_not_count(train_tiny: Train, cli: Cli) -> None:
    folder = train_tiny("data.val.limit=2", "trainer.max_steps=1", "pictures=0")
    metrics = json.loads((folder / "metrics.json").read_text())
    data = OmegaConf.load(folder / "config.yaml").data
    annotations = Path(data.root) / data.val.annotations
    images = json.loads((folder / "image_ids.json").read_text())
    find_some_objects(annotations, images, folder)
    cli("analyze", "errors", f"run={folder}")
    report = errors(folder / "errors")
    assert (report["images"], metrics["images"]) == (2, {"seen": 2, "total": 3})
    for kind in ("box", "mask"):
        for loop, found in report[kind].items():
            detections = folder / ("detections.json" if loop == "3" else f"detections_loop{loop}.json")
            at, by_class = coco_ap(annotations, detections, images, kind)
            everything = COCO(str(annotations)).getImgIds()
            assert 0 < coco_ap(annotations, detections, everything, kind)[0][0] < at[0]
            assert [found["at_iou"][iou]["ap"] for iou in ("0.5", "0.75")] == pytest.approx(at, rel=1e-12)
            assert [values["ap"] for values in found["per_class"].values()] == pytest.approx(by_class, rel=1e-12)


def test_as_many_detections_count_as_in_the_evaluation_of_the_run(trained: Path, cli: Cli, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    cli("evaluate", checkpoint, "evaluation.max_detections=1", "pictures=0", f"output_dir={tmp_path}")
    cli("analyze", "errors", f"run={tmp_path}")
    cli("analyze", "errors", f"run={tmp_path}", "max_detections=1", f"output_dir={tmp_path}/one")
    cli("analyze", "errors", f"run={tmp_path}", "max_detections=100", f"output_dir={tmp_path}/all")
    assert errors(tmp_path / "errors") == errors(tmp_path / "one")
    assert errors(tmp_path / "errors") != errors(tmp_path / "all")


def test_detections_that_do_not_belong_to_the_annotations_are_refused(
    evaluated: Path, cli: Cli, tmp_path: Path
) -> None:
    data = OmegaConf.load(evaluated / "config.yaml").data
    annotations = f"annotations={Path(data.root) / data.val.annotations}"
    entry = json.loads((evaluated / "detections.json").read_text())[0]
    cases = {"image": {"image_id": 99}, "category": {"category_id": 99}}
    messages = {"image": "entry 0 has image_id 99, which is not in", "category": "detections name category 99"}
    for name, change in cases.items():
        (tmp_path / f"{name}.json").write_text(json.dumps([{**entry, **change}]))
        with pytest.raises(ValueError, match=messages[name]):
            cli("analyze", "errors", f"detections={tmp_path}/{name}.json", annotations, f"output_dir={tmp_path}")


def test_speed_tells_ap_and_time_of_every_setting_beside_the_network_as_trained(
    trained: Path, cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curves = "loops:[{eval_loops:1}],leave:[{early_exit:{background_above:0,score_change:0,box_iou:1}}]"
    effort = ("repetitions=1", "warmups=0", "clock=processor", "device=cpu")
    checkpoint = f"checkpoint={trained}/checkpoints/last.ckpt"
    cli("analyze", "speed", checkpoint, "~curves", f"+curves={{{curves}}}", *effort, f"output_dir={tmp_path}")
    report, metrics = (
        json.loads((tmp_path / "speed.json").read_text()),
        json.loads((trained / "metrics.json").read_text()),
    )
    plain, one, left = report["points"]
    assert [(point["curve"], point["label"]) for point in report["points"]] == [
        ("as trained", "3 loops"),
        ("loops", "1 loops"),
        ("leave", "0/0/1"),
    ]
    assert (plain["box"], plain["mask"]) == (metrics["box"], metrics["mask"])
    assert (one["box"], one["mask"]) == (metrics["loops"]["1"]["box"], metrics["loops"]["1"]["mask"])
    assert left["mask"]["ap"] == pytest.approx(one["mask"]["ap"], abs=1e-4)
    assert plain["ratio"] == 1
    assert all(point["seconds_per_image"] > 0 for point in report["points"])
    assert (tmp_path / "speed.png").stat().st_size > 10_000
    assert "leave, 0/0/1" in capsys.readouterr().out


def test_speed_without_a_checkpoint_is_refused(cli: Cli) -> None:
    with pytest.raises(ValueError, match="checkpoint is empty"):
        cli("analyze", "speed")
