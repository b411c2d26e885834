"""Images, masks and annotation files that were made to harm: they are read or refused, and cost little."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hostile_files
import numpy as np
import pytest
from PIL import Image

from r3cnn.data import loading

SECONDS, MEGABYTES = 10, 512


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    assert hostile_files.write_all(folder) >= 90
    command = [sys.executable, "-W", "ignore", hostile_files.__file__, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=280, check=True)
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_every_hostile_file_is_read_or_refused_by_name(outcomes):
    folder, found = outcomes
    assert {name for name, *_ in found} == {path.name for part in folder.iterdir() for path in part.iterdir()}
    assert [one for one in found if not one[1].startswith(("read ", "refused "))] == []
    assert [one for one in found if one[1].startswith("refused ") and one[0] not in one[1]] == []


@pytest.mark.slow
def test_no_hostile_file_starts_a_process_connects_or_removes(outcomes):
    assert [(name, events) for name, _, _, _, events in outcomes[1] if events] == []


@pytest.mark.slow
def test_no_hostile_file_takes_more_than_10_seconds_or_512_megabytes(outcomes):
    _, found = outcomes
    least = min(peak for _, _, _, peak, _ in found)
    assert [(name, seconds) for name, _, seconds, _, _ in found if seconds > SECONDS] == []
    assert [(name, peak - least) for name, _, _, peak, _ in found if peak - least > MEGABYTES] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("EPS named png", "unknown image format"),
        ("PDF named png", "unknown image format"),
        ("PostScript", "unknown image format"),
        ("WMF", "unknown image format"),
        ("OLE", "unknown image format"),
        ("PNG of 178 megapixels in 16 bits", "it has 178.2 megapixels, max_megapixels=65 are the most"),
        ("GIF whose frame is larger than itself", "megapixels"),
        ("TIFF of a tile of 900 megapixels", "it has 900.0 megapixels"),
        ("JPEG of 20,000 scans", "at most 100 are read"),
        ("JPEG 2000 of 65 megapixels", "25 for JPEG2000"),
        ("a named pipe", "is a named pipe: a file is needed"),
        ("a link to a device", "is a device: a file is needed"),
        ("annotations in a named pipe", "is a named pipe: a file is needed"),
        ("a mask of 178 megapixels", "it has 178.2 megapixels"),
        ("stripes of 65 megapixels", "it is no index image"),
    ],
)
def test_what_is_hostile_is_said(outcomes, name, reason):
    said = [outcome for found, outcome, *_ in outcomes[1] if found[4:] == name]
    assert said
    assert all(reason in outcome for outcome in said)


@pytest.mark.slow
def test_what_is_only_large_is_read(outcomes):
    found = {(name[4:], outcome) for name, outcome, *_ in outcomes[1]}
    for name, shape in (("PNG just small enough in RGBA", (8000, 8100)), ("WebP just small enough", (4700, 4600))):
        assert (name, f"read torch.Size([3, {shape[0]}, {shape[1]}])") in found
    assert ("65,000 instances", "read 64999") in found


def test_a_large_image_is_the_same_pixels_in_strips_and_turned(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 2**16, (40, 30), dtype=np.uint16)
    colours = np.random.default_rng(1).integers(0, 2**8, (40, 30, 3), dtype=np.uint8)
    for name, image in (("wide", Image.fromarray(pixels)), ("rgb", Image.fromarray(colours))):
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            for kind in ("png", "tiff"):
                file = Path(tmp_path, f"{name}{orientation}.{kind}")
                image.save(file, exif=exif)
                monkeypatch.setattr(loading, "STRIP", 2**20)
                whole, facts = loading.IN_8_BITS(file), loading.IN_8_BITS.examine(file)
                monkeypatch.setattr(loading, "STRIP", 70)
                assert whole.equal(loading.IN_8_BITS(file))
                assert facts == loading.IN_8_BITS.examine(file)
                assert facts.size == whole.shape[1:]
