"""`r3cnn data check|browse|convert`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import Cli

SHAPES = ("data=shapes", "data.prepare.train=6", "data.prepare.val=3", "data.workers=0")


def test_check_writes_statistics_and_a_picture_and_ends_well_without_problems(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli("data", "check", *SHAPES, f"output_dir={tmp_path}")
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["train"]["problems"] == found["val"]["problems"] == []
    assert found["train"]["statistics"]["images"] == 6
    assert set(found["val"]["statistics"]["per_class"]) == {"circle", "square", "triangle"}
    with Image.open(tmp_path / "check.png") as picture:
        assert len(np.unique(np.asarray(picture))) > 20
    out = capsys.readouterr().out
    assert "0 problems" in out
    assert "triangle" in out


def custom(folder: Path) -> tuple[str, ...]:
    images, files = folder / "images", folder / "instances.json"
    data = [f"data.{split}.{key}={path}" for split in ("train", "val") for key, path in (("images", images),)]
    data += [f"data.{split}.annotations={files}" for split in ("train", "val")]
    return ("data=custom", "data.workers=0", *data)


def draw_masks(folder: Path) -> None:
    for name, boxes in (("a", [(2, 2, 30, 30), (40, 10, 60, 44)]), ("b", [(5, 5, 50, 40)])):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(boxes)).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{name}.png")
        for number, (x1, y1, x2, y2) in enumerate(boxes):
            mask = np.zeros((48, 64), dtype=np.uint8)
            mask[y1:y2, x1:x2] = 255
            path = folder / f"masks/{name}/{('cat', 'dog')[number]}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)


def converted(cli: Cli, folder: Path) -> tuple[str, ...]:
    draw_masks(folder)
    cli("data", "convert", f"images={folder}/images", f"masks={folder}/masks", f"output={folder}/instances.json")
    return custom(folder)


def test_a_converted_data_set_passes_the_check(cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = converted(cli, tmp_path)
    assert "2 images, 3 objects, classes cat, dog" in capsys.readouterr().out
    cli("data", "check", *data, f"output_dir={tmp_path}/out")
    found = json.loads((tmp_path / "out/check.json").read_text())
    assert found["train"]["problems"] == []
    assert found["train"]["notes"] == []
    assert found["train"]["statistics"]["per_class"]["cat"] == {"objects": 2, "images": 2}


def test_check_lists_all_problems_and_ends_with_an_error(
    cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = converted(cli, tmp_path)
    (tmp_path / "images/a.png").write_bytes(b"broken")
    (tmp_path / "images/b.png").unlink()
    with pytest.raises(SystemExit) as ended:
        cli("data", "check", *data, f"output_dir={tmp_path}/out")
    assert ended.value.code == 1
    problems = json.loads((tmp_path / "out/check.json").read_text())["train"]["problems"]
    assert [problem.split(" ", 2)[:2] for problem in problems] == [["image", "1"], ["image", "2:"]]
    assert "2 problems" in capsys.readouterr().out


def test_check_of_a_file_that_is_no_coco_file_says_so_and_ends_with_an_error(cli: Cli, tmp_path: Path) -> None:
    data = converted(cli, tmp_path)
    (tmp_path / "instances.json").write_text('{"images": []}')
    with pytest.raises(SystemExit) as ended:
        cli("data", "check", *data, f"output_dir={tmp_path}/out")
    assert ended.value.code == 1
    (problem,) = json.loads((tmp_path / "out/check.json").read_text())["train"]["problems"]
    assert "has no list 'annotations'" in problem


def test_check_looks_at_the_validation_file_though_the_training_file_cannot_be_read(cli: Cli, tmp_path: Path) -> None:
    data = converted(cli, tmp_path)
    (tmp_path / "images/a.png").write_bytes(b"broken")
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(SystemExit):
        cli("data", "check", *data, f"data.train.annotations={tmp_path}/train.json", f"output_dir={tmp_path}/out")
    found = json.loads((tmp_path / "out/check.json").read_text())
    assert "train.json" in found["train"]["problems"][0]
    assert ["a.png" in problem for problem in found["val"]["problems"]] == [True]
    assert found["val"]["statistics"]["per_class"]["cat"]["objects"] == 2


def test_browse_draws_what_the_recipe_makes_of_the_images(cli: Cli, tmp_path: Path) -> None:
    jitter = ("augmentation=large_scale_jitter", "augmentation.scaling.crop=[96,128]")
    for epoch in (0, 1):
        cli("data", "browse", *SHAPES, *jitter, "count=4", f"epoch={epoch}", f"output_dir={tmp_path}")
    pictures = sorted((tmp_path / "browse").glob("train_*.png"))
    assert len(pictures) == 8
    assert len({path.read_bytes() for path in pictures}) == 8


def test_browse_without_a_recipe_shows_the_validation_images_whole(cli: Cli, tmp_path: Path) -> None:
    cli("data", "browse", *SHAPES, "split=val", "count=50", f"output_dir={tmp_path}")
    pictures = list((tmp_path / "browse").glob("val_0_*.png"))
    assert len(pictures) == 3
    with Image.open(pictures[0]) as picture:
        assert max(picture.size) >= 640


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "images=a"), "needs masks=…, output=…"),
        (("browse", *SHAPES, "split=test"), "split is 'test': one of train, val is needed"),
        (("browse", *SHAPES, "count=0"), "count is 0: a whole number >= 1"),
        (("part=look",), "part is 'look': one of check, browse, convert is needed"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(cli: Cli, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cli("data", *arguments)


def test_an_unknown_part_is_met_with_the_nearest_one(cli: Cli) -> None:
    with pytest.raises(ValueError, match="did you mean 'browse'"):
        cli("data", "browze")
