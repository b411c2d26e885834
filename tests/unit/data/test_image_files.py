"""Image files are found below their folder by whatever name an annotation file has for them, and nowhere else."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path

import pytest

from r3cnn.data.image_files import ImageFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("plain.png", "a:b.png", "shot\u202fPM.png", "sub/in sub.png", "C:secret.png", "x\u202etxt.png"):
        path = tmp_path / "data" / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "data" / "outside.png").touch()
    return tmp_path / "data" / "images"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("plain.png", "plain.png"),
        ("./plain.png", "plain.png"),
        ("sub//./in sub.png", "sub/in sub.png"),
        ("a:b.png", "a:b.png"),
        ("C:secret.png", "C:secret.png"),
        ("shot\u202fPM.png", "shot\u202fPM.png"),
        ("x\u202etxt.png", "x\u202etxt.png"),
        ("sub\\in sub.png", "sub/in sub.png"),
        ("images/sub/in sub.png", "sub/in sub.png"),
        ("images\\plain.png", "plain.png"),
        ("../images/plain.png", "plain.png"),
        ("..\\images/sub/../plain.png", "plain.png"),
    ],
)
def test_a_name_is_found_as_it_lies_on_the_disk(folder: Path, name: str, found: str) -> None:
    assert ImageFolder(folder).find(name) == found


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_composed_and_decomposed_letters_are_the_same_and_the_very_same_comes_first(
    tmp_path: Path, on_disk: str, asked: str
) -> None:
    name = "größe/Käfer ﬁ.png"
    path = tmp_path / unicodedata.normalize(on_disk, name)
    path.parent.mkdir()
    path.touch()
    assert tmp_path / ImageFolder(tmp_path).find(unicodedata.normalize(asked, name)) == path
    twin = tmp_path / unicodedata.normalize(asked, name)
    twin.parent.mkdir(exist_ok=True)
    twin.touch()
    assert tmp_path / ImageFolder(tmp_path).find(unicodedata.normalize(asked, name)) == twin


def test_an_absolute_path_inside_is_found_through_links_as_well(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    for place in (folder, link):
        assert ImageFolder(place).find(str(folder / "sub/in sub.png")) == "sub/in sub.png"
        assert ImageFolder(place).find(str(place / "plain.png")) == "plain.png"


@pytest.mark.parametrize(
    "name", ["../outside.png", "sub/../../outside.png", "/etc/passwd", "..", "a\\..\\..\\outside.png"]
)
def test_what_lies_outside_is_never_found(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"leaves the image folder|is not in"):
        ImageFolder(folder).find(name)


def test_an_absolute_path_outside_is_refused_even_where_it_begins_like_the_folder(folder: Path) -> None:
    other = folder.parent / "images2"
    other.mkdir()
    (other / "plain.png").touch()
    with pytest.raises(ValueError, match=r"leaves the image folder .*: its plain\.png would be found under that name"):
        ImageFolder(folder).find(str(other / "plain.png"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("shot PM.png", r"'shot PM\.png' is asked for, 'shot\\u202fPM\.png' is there"),
        ("Plain.PNG", r"'Plain\.PNG' is asked for, 'plain\.png' is there"),
        ("plane.png", r"'plane\.png' is asked for, 'plain\.png' is there"),
        ("D:\\files\\plain.png", r"its plain\.png would be found under that name alone"),
        ("https://host/files/plain.png", r"its plain\.png would be found under that name alone"),
        ("nothing like it", "images$"),
    ],
)
def test_a_missing_file_is_told_from_one_that_looks_alike(folder: Path, name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        ImageFolder(folder).find(name)


def test_a_folder_that_lacks_thousands_of_images_is_told_in_seconds(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"photo of day {number:08d}.png").touch()
    folder, start = ImageFolder(tmp_path), time.process_time()
    for number in range(2000):
        with pytest.raises(ValueError, match="is not in"):
            folder.find(f"foto of day {number:08d}.jpg")
    assert time.process_time() - start < 10
