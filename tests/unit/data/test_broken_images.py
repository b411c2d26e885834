"""Hundreds of odd and broken image files: each is loaded right, with its objects where its pixels are, or refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from r3cnn.cli.errors import message_for_user
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.loading import ImageError, collate, read_image
from r3cnn.data.reading import read_annotations
from r3cnn.data.samplers import Draw

MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
TURNED = {  # EXIF orientation: how to store pixels so that the tag turns them back
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16")
FORMATS = {
    "RGB": ("png", "jpg", "bmp", "webp", "tiff"),
    "L": ("png", "jpg"),
    "CMYK": ("jpg", "tiff"),
    "P": ("png", "gif"),
}


def white_on_black(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    pixels = np.zeros((height, width), dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return pixels


def save(pixels: np.ndarray, mode: str, kind: str, file: Path, orientation: int = 1) -> None:
    stored = np.ascontiguousarray(TURNED[orientation](pixels))
    picture = (
        Image.fromarray(stored.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(stored).convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif} if kind in ("png", "jpg", "webp", "tiff") else {}
    picture.save(
        file, **options, **({"quality": 100} if kind == "jpg" else {"lossless": True} if kind == "webp" else {})
    )


def data_set(folder: Path, name: str, size: tuple[int, int], box: tuple[int, int, int, int], **settings) -> CocoDataset:
    x1, y1, x2, y2 = box
    record = {"id": 1, "file_name": name, "height": size[0], "width": size[1]}
    found = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "area": 1.0, "iscrowd": 0}
    found["segmentation"] = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    content = {"images": [record], "annotations": [found], "categories": [{"id": 1, "name": "thing"}]}
    file = folder / "coco.json"
    file.write_text(json.dumps(content))
    return CocoDataset(read_annotations(file, ["thing"]), folder, indices=np.array([0]), **settings)


sides = st.tuples(st.integers(1, 60), st.integers(1, 60)) | st.sampled_from(
    [(1, 1), (3, 60), (60, 3), (1, 200), (200, 1)]
)
odd_images = st.tuples(sides, st.sampled_from(MODES)).flatmap(
    lambda choice: st.tuples(
        st.just(choice[0]),
        st.just(choice[1]),
        st.sampled_from(FORMATS.get(choice[1], ("png",))),
        st.tuples(*(st.floats(0, 1) for _ in range(4))),
        st.integers(1, 8),
        st.booleans(),
    )
)


@MANY
@given(odd_images)
def test_objects_are_where_their_pixels_are_whatever_kind_of_file_it_is(tmp_path, odd):
    (height, width), mode, kind, shares, orientation, flip = odd
    orientation = orientation if kind in ("png", "jpg", "webp", "tiff") else 1
    x, y = int(shares[0] * (width - 1)), int(shares[1] * (height - 1))
    box = (x, y, x + 1 + int(shares[2] * (width - x - 1)), y + 1 + int(shares[3] * (height - y - 1)))
    pixels = white_on_black(height, width, box)
    save(pixels, mode, kind, tmp_path / f"a.{kind}", orientation)
    data = data_set(
        tmp_path, f"a.{kind}", (height, width), box, image_size=tuple(sorted((height, width))), flip=float(flip)
    )
    example = data[Draw(0, 0)]
    expected = torch.from_numpy(pixels.copy())
    expected = expected.flip(-1) if flip else expected
    assert example.size == (height, width)
    assert (example.image[0].int() - expected.int()).abs().float().mean() < (16 if kind == "jpg" else 1e-6)
    assert_white_where_the_target_is(example.image, example.target.masks.to_dense()[0], example.target.boxes[0])


def assert_white_where_the_target_is(image: Tensor, mask: Tensor, box: Tensor) -> None:
    """Mean grey levels tell a shift by a pixel where JPEG blurs what single ones would tell."""
    height, width = image.shape[-2:]
    x1, y1, x2, y2 = (round(value) for value in box.tolist())
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[y1:y2, x1:x2] = True
    grey = image.float().mean(dim=0)
    assert (mask[:height, :width].bool() == inside).all()
    assert grey[inside].mean() > 128
    if not inside.all():
        assert grey[~inside].mean() < 128


@pytest.mark.parametrize(("height", "width"), [(1, 1), (30, 600), (600, 30), (1, 2000), (2, 3)])
def test_extreme_shapes_are_resized_with_their_objects(tmp_path, height, width):
    box = (0, 0, max(width // 2, 1), height)
    save(white_on_black(height, width, box), "RGB", "png", tmp_path / "a.png")
    example = data_set(tmp_path, "a.png", (height, width), box, image_size=(60, 100))[Draw(0, 0)]
    assert max(example.size) <= 100
    assert min(example.size) >= 1
    assert len(example.target) == 1
    x1, y1, x2, y2 = example.target.boxes[0].tolist()
    assert (x1, y1, y2) == (0, 0, example.size[0])
    assert x2 / example.size[1] == pytest.approx(box[2] / width)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tiff", "gif", "bmp"])
def test_a_file_cut_anywhere_is_refused_by_name(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, format={"jpg": "jpeg"}.get(kind, kind))
    whole = stream.getvalue()
    file = tmp_path / f"cut.{kind}"
    refused = 0
    for length in np.linspace(0, len(whole) * 0.9, 60).astype(int).tolist():
        file.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=rf"cut\.{kind}: "):
            read_image(file)
        refused += 1
    assert refused == 60


damage = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4)


@MANY
@given(st.sampled_from(["jpg", "png", "webp", "tiff", "gif", "bmp"]), damage)
def test_a_damaged_file_is_an_image_or_refused_by_name_and_nothing_else_happens(tmp_path, kind, damaged):
    pixels = np.random.default_rng(1).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "camera"
    stream = io.BytesIO()
    options = {"exif": exif} if kind in ("jpg", "png", "webp", "tiff") else {}
    Image.fromarray(pixels).save(stream, format={"jpg": "jpeg"}.get(kind, kind), **options)
    content = bytearray(stream.getvalue())
    for share, inserted in damaged:
        start = int(share * len(content))
        content[start : start + len(inserted)] = inserted
    file = tmp_path / f"damaged.{kind}"
    file.write_bytes(content)
    loaded = image_or_reason(file)
    if isinstance(loaded, str):
        assert f"damaged.{kind}: cannot be read as an image" in loaded
    else:
        assert (loaded.dtype, loaded.shape[0], loaded.ndim) == (torch.uint8, 3, 3)


def image_or_reason(file: Path) -> Tensor | str:
    try:
        return read_image(file)
    except ImageError as error:
        return str(error)


def test_a_decompression_bomb_is_refused_in_a_worker_which_goes_on_living(tmp_path):
    bomb = Image.new("1", (20_000, 20_000))
    bomb.save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 200_000
    data = data_set(tmp_path, "bomb.png", (20_000, 20_000), (0, 0, 10, 10), image_size=(60, 100))
    loader = DataLoader(data, batch_sampler=[[Draw(0, 0)]], collate_fn=collate, num_workers=1)
    with pytest.raises(ImageError, match="it has 400") as error:
        list(loader)
    message = str(message_for_user(error.value))
    assert message.startswith(
        f"{tmp_path}/bomb.png: cannot be read as an image: it has 400.0 megapixels, max_megapixels=65"
    )
    assert message.endswith("data.on_bad_annotation=skip leaves them out")
    assert "\n" not in message


def test_an_image_that_a_turn_makes_another_size_than_annotated_is_refused(tmp_path):
    save(white_on_black(20, 30, (0, 0, 9, 9)), "RGB", "jpg", tmp_path / "a.jpg", orientation=6)
    data = data_set(tmp_path, "a.jpg", (30, 20), (0, 0, 9, 9), image_size=(60, 100))
    with pytest.raises(ImageError, match=r"a\.jpg: is 20 px high and 30 px wide \(after EXIF rotation\)"):
        data[Draw(0, 0)]
