from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from r3cnn.batch import Example
from r3cnn.data.loading import ImageError, collate, load_image, read_image
from r3cnn.structures import InstanceMasks, Target


def example(height, width, count=1, image_id=1):
    canvas = (-(-height // 32) * 32, -(-width // 32) * 32)
    masks = InstanceMasks.from_windows([torch.ones(3, 4, dtype=torch.uint8)] * count, [(1, 2)] * count, canvas)
    boxes = torch.tensor([[1.0, 2.0, 5.0, 5.0]]).repeat(count, 1)
    target = Target(boxes, torch.arange(count), masks)
    return Example(torch.full((3, height, width), 7, dtype=torch.uint8), target, image_id, (height * 2, width * 2))


def test_an_image_is_resized_and_its_own_size_is_told(tmp_path):
    Image.fromarray(np.full((60, 80, 3), (10, 20, 30), dtype=np.uint8)).save(tmp_path / "a.png")
    image, size = load_image(tmp_path / "a.png", (30, 100))
    assert image.shape == (3, 30, 40)
    assert image.dtype == torch.uint8
    assert size == (60, 80)
    assert image[:, 5, 5].tolist() == [10, 20, 30]


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


def test_float_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ImageError, match=r"a\.tiff: .*floats"):
        read_image(tmp_path / "a.tiff")


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
