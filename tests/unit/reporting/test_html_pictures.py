"""Pictures of the loops for the page."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from page_samples import SETTINGS, write_data, write_run
from PIL import Image

from r3cnn.data.loading import read_image
from r3cnn.reporting.html import PictureSettings
from r3cnn.reporting.html.pictures import NoPicturesError, loop_pictures
from r3cnn.reporting.html.runs import PageRun, page_runs


@pytest.fixture
def run(tmp_path: Path) -> PageRun:
    write_data(tmp_path / "data")
    return page_runs([write_run(tmp_path / "run", tmp_path / "data")])[0]


def decoded(uri: str) -> Image.Image:
    head, _, code = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(code)))


def test_every_image_has_a_picture_per_loop_that_says_how_well_the_boxes_fit(run: PageRun) -> None:
    pictures = loop_pictures(run.folder, run.data, 3, SETTINGS.pictures, read_image)
    assert [one.file_name for one in pictures] == ["1.png", "2.png"]
    # Boxes of width 40 moved by 10, 5 and 3.33 pixels: the IoU is (40 - d) / (40 + d).
    assert [loop.text for loop in pictures[0].loops] == [
        "1 box, mean IoU 0.600",
        "1 box, mean IoU 0.778",
        "1 box, mean IoU 0.846",
    ]
    assert len({loop.uri for loop in pictures[0].loops}) == 3


def test_pictures_are_as_large_as_was_asked_for(run: PageRun) -> None:
    (first, _) = loop_pictures(run.folder, run.data, 3, SETTINGS.pictures, read_image)
    assert decoded(first.loops[0].uri).size == (first.width, first.height) == (120, 90)


def test_detections_below_the_threshold_are_left_out(run: PageRun) -> None:
    low = PictureSettings(images=1, side=120, quality=70, score_threshold=0.1)
    (first,) = loop_pictures(run.folder, run.data, 3, low, read_image)
    assert first.loops[0].text == "2 boxes, mean IoU 0.800"


def test_fewer_images_are_spread_over_those_that_were_scored(run: PageRun) -> None:
    (run.folder / "image_ids.json").write_text("[2, 1]")
    one = PictureSettings(images=1, side=50, quality=70, score_threshold=0.5)
    assert [picture.file_name for picture in loop_pictures(run.folder, run.data, 3, one, read_image)] == ["2.png"]


def test_no_pictures_are_drawn_where_none_were_asked_for(run: PageRun) -> None:
    none = PictureSettings(images=0, side=50, quality=70, score_threshold=0.5)
    assert loop_pictures(run.folder, {}, 3, none, read_image) == []


def test_images_that_are_gone_are_named(run: PageRun) -> None:
    shutil.rmtree(Path(str(run.data["root"])) / "val")
    with pytest.raises(NoPicturesError, match="val is not there any more"):
        loop_pictures(run.folder, run.data, 3, SETTINGS.pictures, read_image)


def test_one_image_that_is_gone_is_named_and_the_others_are_drawn(
    run: PageRun, caplog: pytest.LogCaptureFixture
) -> None:
    (Path(str(run.data["root"])) / "val/2.png").unlink()
    drawn = loop_pictures(run.folder, run.data, 3, SETTINGS.pictures, read_image)
    assert [one.file_name for one in drawn] == ["1.png"]
    assert "'2.png' is not in" in caplog.text
    (Path(str(run.data["root"])) / "val/1.png").write_bytes(b"no image")
    with pytest.raises(NoPicturesError, match=r"'2\.png' is not in .*val"):
        loop_pictures(run.folder, run.data, 3, SETTINGS.pictures, read_image)


def test_pictures_show_the_grey_values_that_the_run_was_trained_on(run: PageRun) -> None:
    for name in ("1.png", "2.png"):
        file = Path(str(run.data["root"])) / "val" / name
        height, width = np.asarray(Image.open(file)).shape[:2]
        Image.fromarray(np.full((height, width), 4095, dtype=np.uint16)).save(file)
    data = {**run.data, "image_range": [0, 4095]}
    drawn = [loop_pictures(run.folder, one, 3, SETTINGS.pictures, read_image)[0] for one in (run.data, data)]
    brightness = [np.asarray(decoded(one.loops[0].uri)).max(axis=2) for one in drawn]
    assert np.median(brightness[0]) < 40 < 200 < np.median(brightness[1])


def test_detections_of_earlier_loops_that_were_not_kept_are_named(run: PageRun) -> None:
    (run.folder / "detections_loop2.json").unlink()
    with pytest.raises(NoPicturesError, match=r"detections_loop2\.json .* evaluation\.save_loops=true"):
        loop_pictures(run.folder, run.data, 3, SETTINGS.pictures, read_image)


def test_an_image_that_the_annotations_do_not_know_any_more_is_named(run: PageRun) -> None:
    (run.folder / "image_ids.json").write_text("[7]")
    with pytest.raises(NoPicturesError, match="image 7"):
        loop_pictures(run.folder, run.data, 3, SETTINGS.pictures, read_image)


def test_a_file_that_is_no_results_file_is_named(run: PageRun) -> None:
    (run.folder / "detections.json").write_text(json.dumps([{"image_id": 1}]))
    with pytest.raises(NoPicturesError, match=r"detections\.json cannot be used: .*score"):
        loop_pictures(run.folder, run.data, 3, SETTINGS.pictures, read_image)


@pytest.mark.parametrize(
    ("key", "value"), [("images", -1), ("side", 0), ("quality", 0), ("quality", 101), ("score_threshold", 1.5)]
)
def test_settings_out_of_range_are_refused_by_name(key: str, value: float) -> None:
    settings = {"images": 1, "side": 100, "quality": 80, "score_threshold": 0.5} | {key: value}
    with pytest.raises(ValueError, match=rf"pictures\.{key} is {value}"):
        PictureSettings(**settings)
