"""A whole run on files as users have them: another encoding, odd names, ids that are text, broken images."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny_runs import TINY_NETWORK, Cli

from r3cnn.cli.outcome import evaluation_files
from r3cnn.data.shapes import write_shapes

NAMES = {"circle": 1, "square": "sq [/x] é", "triangle": 2.5}


def odd_set(folder: Path) -> Path:
    """Drawn shapes in UTF-16, with backslashes, decomposed letters, a narrow blank and a colon in names, ids of text.

    Both sets lack an image and hold a broken one; the second one lacks a class.
    """
    write_shapes(folder, train=8, val=5, seed=0)
    for split in ("train", "val"):
        file = folder / f"annotations/instances_{split}.json"
        content = json.loads(file.read_text())
        for record in content["images"]:
            name = f"Käfer\u202f[{record['id']}]:x.png"
            (folder / split / record["file_name"]).rename(folder / split / unicodedata.normalize("NFD", name))
            record |= {"file_name": f"{split}\\{name}", "id": f"img {record['id']}/é"}
        for record in content["annotations"]:
            record |= {"image_id": f"img {record['image_id']}/é", "category_id": f"c{record['category_id']}", "area": 0}
        for record in content["categories"]:
            record |= {"id": f"c{record['id']}", "name": NAMES[record["name"]]}
        if split == "val":  # lacks a class, which the network may find all the same
            for kind, key in (("annotations", "category_id"), ("categories", "id")):
                content[kind] = [record for record in content[kind] if record[key] != "c3"]
        content["categories"].append({"id": "c0", "name": 1, "supercategory": "none"})
        file.write_bytes(json.dumps(content, ensure_ascii=False).encode("utf-16"))
        broken, missing = sorted((folder / split).iterdir())[-2:]
        broken.write_bytes(broken.read_bytes()[:2000])
        missing.unlink()
    return folder


def test_odd_files_are_trained_on_evaluated_and_analysed_and_pycocotools_agrees(
    cli: Cli, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, run = odd_set(tmp_path / "odd"), tmp_path / "run"
    sets = [
        f"data.{split}.{key}"
        for split in ("train", "val")
        for key in (f"images={split}", f"annotations=annotations/instances_{split}.json")
    ]
    tiny = ("data.batch_size=3", "data.image_size=[64,96]", "data.workers=0", "trainer.accelerator=cpu", "pictures=1")
    settings = ("data=custom", f"data.root={data}", *sets, *tiny, "data.on_bad_annotation=skip")
    cli("train", *TINY_NETWORK, *settings, "trainer.max_steps=4", f"output_dir={run}")
    log = (run / "train.log").read_text()
    assert "1 repeated categories without annotation ignored" in log
    assert "left out 1 of 8 images, first: " in log
    assert "left out 1 of 4 images that cannot be read, first: " in log
    assert "training on 7 images; in the file: " in log
    assert list(json.loads((run / "metrics.json").read_text())["per_class"]) == ["1", "sq [/x] é", "2.5"]
    assert json.loads((run / "image_ids.json").read_text()) == ["img 1/é", "img 2/é", "img 3/é"]
    drawn = {run / "pictures" / f"img 1%2Fé_{kind}.png" for kind in ("predictions", "loops")}
    assert drawn <= {*evaluation_files(run)}
    cli("analyze", "errors", f"run={run}")
    assert json.loads((run / "errors/errors.json").read_text())["classes"] == ["1", "sq [/x] é", "2.5"]
    agrees_with_pycocotools(data / "annotations/instances_val.json", run)
    cli("report", f"runs={run}", f"output_dir={tmp_path}/report")
    assert "data:image/webp" in (tmp_path / "report/report.html").read_text()


def agrees_with_pycocotools(file: Path, run: Path) -> None:
    truth = COCO()
    truth.dataset = json.loads(file.read_bytes().decode("utf-16"))
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(str(run / "detections.json")), "bbox")
    evaluation.params.imgIds = json.loads((run / "image_ids.json").read_text())
    evaluation.params.catIds = ["c1", "c2"]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ours = json.loads((run / "metrics.json").read_text())["box"]
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    expected = [None if value == -1 else value for value in evaluation.stats[:6].tolist()]
    assert [ours[name] for name in names] == pytest.approx(expected, abs=1e-12)
