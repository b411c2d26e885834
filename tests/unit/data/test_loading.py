from __future__ import annotations

import logging
import os
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from r3cnn.batch import Example
from r3cnn.data.loading import ImageError, ImageReader, collate, find_images, proposed_range, read_image
from r3cnn.structures import InstanceMasks, Target


def example(height, width, count=1, image_id=1):
    canvas = (-(-height // 32) * 32, -(-width // 32) * 32)
    masks = InstanceMasks.from_windows([torch.ones(3, 4, dtype=torch.uint8)] * count, [(1, 2)] * count, canvas)
    boxes = torch.tensor([[1.0, 2.0, 5.0, 5.0]]).repeat(count, 1)
    target = Target(boxes, torch.arange(count), masks)
    return Example(torch.full((3, height, width), 7, dtype=torch.uint8), target, image_id, (height * 2, width * 2))


def test_exif_rotation_is_applied(tmp_path):
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    pixels[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 48, 16)
    assert image[0, :8].min() == 255
    assert image[0, 8:].max() == 0


QUARTER = (0x0112, 3, 1, b"\0\6\0\0")
ODD_TAGS = {  # of which Pillow's exif_transpose dies: number, type, count and value of an EXIF entry
    "struct.error": (0xA005, 7, 1, b"\0\0\0\x1a"),
    "AttributeError": (0x013B, 5, 1, b"\0\0\0\x08"),
    "TypeError": (0x011A, 2, 4, b"\0\0\0\x08"),
    "ValueError": (0x8825, 9, 1, b"\xff\xff\xff\xff"),
}


def exif_of(*entries):
    rows = b"".join(struct.pack(">HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries)) + rows + bytes(4)


def left_half_white():
    pixels = np.zeros((16, 48, 3), dtype=np.uint8)
    pixels[:, :24] = 255
    return Image.fromarray(pixels)


@pytest.mark.filterwarnings("ignore:.*EXIF")
@pytest.mark.parametrize("tag", ODD_TAGS)
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_an_image_with_odd_exif_tags_is_turned_as_it_says(tmp_path, kind, tag):
    left_half_white().save(tmp_path / f"a.{kind}", exif=exif_of(QUARTER, ODD_TAGS[tag]))
    image = read_image(tmp_path / f"a.{kind}")
    assert image.shape == (3, 48, 16)
    assert (image[0, :20].min() > 250, image[0, 28:].max() < 5) == (True, True)


@pytest.mark.filterwarnings("ignore:.*EXIF")
def test_an_image_whose_exif_cannot_be_read_is_taken_as_it_is(tmp_path):
    for number, exif in enumerate(
        (b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"")
    ):
        left_half_white().save(tmp_path / f"{number}.jpg", exif=exif)
        assert read_image(tmp_path / f"{number}.jpg").shape == (3, 16, 48)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_with_odd_tags_is_turned_once(tmp_path, compression):
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "somebody"
    left_half_white().save(tmp_path / "a.tif", exif=exif, compression=compression)
    content = (tmp_path / "a.tif").read_bytes()
    artist = struct.pack("<HH", 0x013B, 2)
    assert artist in content
    (tmp_path / "a.tif").write_bytes(content.replace(artist, struct.pack("<HH", 0x013B, 5)))  # no text, but fractions
    image = read_image(tmp_path / "a.tif")
    assert image.shape == (3, 48, 16)
    assert (image[0, :20].min() > 250, image[0, 28:].max() < 5) == (True, True)


def test_greyscale_alpha_palette_and_one_bit_become_rgb(tmp_path):
    pixels = np.full((4, 5, 4), (200, 100, 50, 0), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png")[:, 0, 0].tolist() == [200, 100, 50]
    Image.fromarray(pixels[:, :, :3]).quantize(4).save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png")[:, 0, 0].tolist() == [200, 100, 50]
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png")[:, 0, 0].tolist() == [200, 200, 200]
    Image.new("1", (5, 4), 1).save(tmp_path / "bit.png")
    assert read_image(tmp_path / "bit.png")[:, 3, 4].tolist() == [255, 255, 255]


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "a.jpg")[:, 8, 8].tolist()
    assert red > 240
    assert max(green, blue) < 15


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read as an image"):
        read_image(tmp_path / "a.png")


def test_a_truncated_jpeg_and_a_missing_file_are_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    for name in ("cut.jpg", "missing.jpg"):
        with pytest.raises(ImageError, match=rf"{name}: cannot be read as an image"):
            read_image(tmp_path / name)


def test_floats_and_values_beyond_sixteen_bits_are_refused_by_the_setting_that_accepts_them(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "a.tiff")
    Image.fromarray(np.full((4, 4), -7, dtype=np.int32)).save(tmp_path / "b.tiff")
    for name, message in (
        ("a", "are floats, from 0.5 to 0.5: .*image_range="),
        ("b", "are beyond 16 bits, from -7 to -7"),
    ):
        with pytest.raises(ImageError, match=rf"{name}\.tiff: cannot be read as an image: its pixels {message}"):
            read_image(tmp_path / f"{name}.tiff")
        assert ImageReader().examine(tmp_path / f"{name}.tiff").problem.startswith("its pixels ")


TWELVE_BITS = np.array([[100, 2048, 4095], [0, 5000, 1023]])


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("uint16", "a.png"), ("uint16", "a.tif"), (">u2", "a.tif"), ("int32", "a.tif"), ("float32", "a.tif")],
)
def test_the_image_range_of_a_data_set_becomes_0_to_255_and_what_lies_outside_is_clipped(tmp_path, dtype, name):
    Image.fromarray(TWELVE_BITS.astype(dtype)).save(tmp_path / name)
    image = ImageReader((0, 4095))(tmp_path / name)
    assert image[0].tolist() == [[6, 128, 255], [0, 255, 64]]
    assert torch.equal(image[0], image[2])
    assert ImageReader([100, 4095])(tmp_path / name)[0].tolist() == [[0, 124, 255], [0, 255, 59]]


def test_what_is_no_number_is_black_and_negative_values_count(tmp_path):
    Image.fromarray(np.array([[np.nan, -np.inf, -1, 0, 1, np.inf]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert ImageReader((-1, 1))(tmp_path / "a.tif")[0].tolist() == [[0, 0, 0, 128, 255, 255]]
    assert ImageReader((-1, 1)).examine(tmp_path / "a.tif").values == (-1, 1)


def test_images_of_eight_bits_are_left_alone_by_the_image_range(tmp_path):
    grey = np.array([[0, 7, 255]], dtype=np.uint8)
    for name, image in {"l": Image.fromarray(grey), "rgb": Image.fromarray(grey).convert("RGB")}.items():
        image.save(tmp_path / f"{name}.png")
        assert ImageReader((0, 7))(tmp_path / f"{name}.png")[0].tolist() == grey.tolist()


def save_deep_png(path, pixels):
    """(h, w, c) uint16, of which Pillow writes but one channel."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_of_sixteen_bits_per_colour_the_upper_eight_are_read_and_an_image_range_is_refused(tmp_path, channels):
    save_deep_png(tmp_path / "a.png", np.full((2, 3, channels), 0x1234, dtype=np.uint16))
    assert read_image(tmp_path / "a.png").unique().tolist() == [0x12]
    assert ImageReader().examine(tmp_path / "a.png").is_cut
    with pytest.raises(ImageError, match=r"a\.png: .*16 bits per colour channel.*image_range=\[0\.0, 4095\.0\]"):
        ImageReader((0, 4095))(tmp_path / "a.png")


@pytest.mark.parametrize("image_range", [[0], [5, 5], [9, 1], "ab", 7, [0, float("nan")], [0, None]])
def test_an_image_range_that_is_none_is_refused(image_range):
    with pytest.raises(ValueError, match=r"image_range is .*: \[low, high\], two numbers in ascending order"):
        ImageReader(image_range)


@pytest.mark.parametrize(
    ("values", "is_float", "proposed"),
    [
        ((3, 4000), False, (0, 4095)),
        ((0, 200), False, (0, 255)),
        ((0, 256), False, (0, 511)),
        ((0, 65535), False, (0, 65535)),
        ((-1024, 3000), False, (-1024, 3000)),
        ((5, 70000), False, (5, 70000)),
        ((0.1, 0.8), True, (0, 1)),
        ((-0.1, 300.5), True, (-0.1, 300.5)),
    ],
)
def test_the_proposed_range_holds_all_numbers_of_the_bits_that_are_used(values, is_float, proposed):
    assert proposed_range(values, is_float=is_float) == proposed


def test_the_first_page_is_read_and_that_is_said_once(tmp_path, caplog):
    from r3cnn.data.loading import _warn_of_pages

    _warn_of_pages.cache_clear()
    pages = [Image.new("RGB", (9, 7), (number, 0, 0)) for number in (10, 200)]
    for kind in ("tif", "gif", "webp"):
        options = {"lossless": True} if kind == "webp" else {}
        pages[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=pages[1:], **options)
        assert read_image(tmp_path / f"a.{kind}")[0].unique().tolist() == [10]
        assert ImageReader().examine(tmp_path / f"a.{kind}").has_pages
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded_by_the_setting_that_accepts_it(
    tmp_path, monkeypatch
):
    Image.new("L", (200, 300)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: content.index(b"IDAT") + 4])  # nothing is left that could be decoded
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 25_000)
    for limit in (0.05, 0.02):  # Pillow itself warns up to twice its limit and refuses beyond
        with pytest.raises(ImageError, match=rf"a\.png: .*it has 0\.1 megapixels, max_megapixels={limit} .*data\.max"):
            ImageReader(max_megapixels=limit)(tmp_path / "a.png")


@pytest.mark.parametrize("limit", [None, 0.06])
def test_the_limit_of_pixels_may_lie_above_pillows_own(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (200, 300)).save(tmp_path / "a.png")
    Image.new("L", (200, 300)).save(tmp_path / "a.tif", compression="tiff_lzw")
    for name in ("a.png", "a.tif"):
        assert ImageReader(max_megapixels=limit)(tmp_path / name).shape == (3, 300, 200)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_limit_of_pixels_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="max_megapixels must be in"):
        ImageReader(max_megapixels=limit)


def test_heic_says_which_package_reads_it_under_any_name(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
    for name in ("a.heic", "b.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
        with pytest.raises(
            ImageError, match=rf"{name}: cannot be read as an image: it is a HEIC .*pip install pillow-heif"
        ):
            read_image(tmp_path / name)


def test_the_images_of_a_folder_are_found_and_the_other_files_counted(tmp_path, caplog):
    for name in (
        "b.png",
        "a.JPG",
        "c.heic",
        "._b.png",
        ".DS_Store",
        "d.mpeg",
        "e.h5",
        "notes.txt",
        "deep/f.tif",
        ".git/g.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "not fetched.png")
    with caplog.at_level(logging.INFO):
        found = find_images(tmp_path, recursive=False)
    assert [path.name for path in found] == ["a.JPG", "b.png", "c.heic", "link.png"]
    assert caplog.messages == [f"{tmp_path}: skipped 6 of 10 files: no images: .DS_Store, ._b.png, d.mpeg and 3 more"]
    assert [path.name for path in find_images(tmp_path, recursive=True)] == [
        *("a.JPG", "b.png", "c.heic", "f.tif"),
        "link.png",  # is named where it is read
    ]


def test_a_batch_lies_on_the_smallest_canvas_that_holds_all_images():
    batch = collate([example(40, 70, image_id=5), example(33, 20, count=0, image_id=9)])
    assert batch.canvas == (64, 96)
    assert [image.shape for image in batch.images] == [(3, 40, 70), (3, 33, 20)]
    assert set(batch.images[0].flatten().tolist()) == {7}
    assert batch.sizes == ((40, 70), (33, 20))
    assert batch.original_sizes == ((80, 140), (66, 40))
    assert batch.image_ids == (5, 9)


def test_targets_of_a_batch_are_those_of_its_images_in_one_storage_per_field():
    examples = [example(40, 70, count=2), example(40, 70, count=0), example(40, 70, count=1)]
    batch = collate(examples)
    for given, target in zip(examples, batch.targets, strict=True):
        assert torch.equal(target.boxes, given.target.boxes)
        assert torch.equal(target.labels, given.target.labels)
        assert torch.equal(target.masks.to_dense(), given.target.masks.to_dense())
        assert target.masks.largest == given.target.masks.largest
    storages = {target.boxes.untyped_storage().data_ptr() for target in batch.targets}
    assert len(storages) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS .*`git lfs pull`"),
    ],
)
def test_a_file_that_was_never_fetched_is_told_as_that(tmp_path, content, reason):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=rf"a\.png: cannot be read as an image: .*{reason}"):
        read_image(tmp_path / "a.png")
