"""Pictures of the loops for the page."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import pytest
from page_samples import SETTINGS, draw_strip, write_run
from PIL import Image

from r3cnn.reporting.html import PictureSettings
from r3cnn.reporting.html.pictures import NoPicturesError, loop_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(write_run(tmp_path / "run").name)


def decoded(uri: str) -> Image.Image:
    head, _, code = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(code)))


def test_every_image_that_the_run_drew_has_a_picture_per_loop(folder: Path) -> None:
    pictures = loop_pictures(folder, 3, SETTINGS.pictures, 1)
    assert [one.name for one in pictures] == ["1", "2"]
    assert [len(set(one.uris)) for one in pictures] == [3, 3]


def test_pictures_are_at_most_as_large_as_was_asked_for(folder: Path) -> None:
    (first, _) = loop_pictures(folder, 3, SETTINGS.pictures, 1)
    assert decoded(first.uris[0]).size == (first.width, first.height)
    assert max(first.width, first.height) == 120


def test_fewer_images_are_spread_over_those_that_were_drawn(folder: Path) -> None:
    for image in range(3, 11):
        draw_strip(folder / "pictures" / f"{image}_loops.png", 3)
    two = PictureSettings(images=2, side=50, quality=70, total_mib=1)
    assert [picture.name for picture in loop_pictures(folder, 3, two, 1)] == ["1", "6"]


def test_the_pictures_of_many_runs_are_smaller_and_then_fewer(folder: Path) -> None:
    large = PictureSettings(images=2, side=400, quality=70, total_mib=0.1)
    sides, images, bytes_of_all = [], [], []
    for runs in (1, 3, 6):
        pictures = loop_pictures(folder, 3, large, runs)
        sides.append(pictures[0].width)
        images.append(len(pictures))
        bytes_of_all.append(runs * sum(len(uri) for one in pictures for uri in one.uris))
    assert sides[0] > sides[1] >= sides[2] >= 90
    assert images[0] >= images[1] >= images[2] >= 1
    assert max(bytes_of_all) < 0.11 * 2**20
    with pytest.raises(NoPicturesError, match=r"no room: .*total_mib"):
        loop_pictures(folder, 3, large, 500)


def test_no_pictures_are_shown_where_none_were_asked_for(folder: Path) -> None:
    assert loop_pictures(folder, 3, PictureSettings(images=0, side=50, quality=70, total_mib=1), 1) == []


def test_a_run_that_drew_nothing_says_how_to(tmp_path: Path) -> None:
    with pytest.raises(NoPicturesError, match=r"has no pictures/\*_loops\.png: pictures=2 draws them"):
        loop_pictures(tmp_path, 3, SETTINGS.pictures, 1)


def test_a_strip_of_other_loops_is_named(folder: Path) -> None:
    with pytest.raises(NoPicturesError, match="is no strip of 4 loops"):
        loop_pictures(folder, 4, SETTINGS.pictures, 1)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "text", "bomb", "postscript", "linked folder"])
def test_nothing_but_pictures_in_the_runs_own_folder_is_shown(folder: Path, tmp_path: Path, kind: str) -> None:
    for strip in (folder / "pictures").iterdir():
        strip.unlink()
    file, private = folder / "pictures" / "1_loops.png", tmp_path / "private" / "1_loops.png"
    draw_strip(private, 3)
    if kind == "link":
        file.symlink_to(private)
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "text":
        file.write_text("no picture")
    elif kind == "postscript":
        file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n")
    elif kind == "bomb":
        Image.new("1", (8_000, 8_000)).save(file)
    else:
        file.parent.rmdir()
        file.parent.symlink_to(private.parent)
    with pytest.raises(NoPicturesError):
        loop_pictures(folder, 3, SETTINGS.pictures, 1)
