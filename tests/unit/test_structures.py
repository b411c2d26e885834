"""Packing a batch and taking it apart again."""

from __future__ import annotations

import pytest
import torch

from r3cnn.batch import Batch, Example
from r3cnn.ops.images import normalize_images
from r3cnn.structures import InstanceMasks, Target, canvas_of


def example(height: int, width: int, count: int, image_id: int) -> Example:
    generator = torch.Generator().manual_seed(image_id)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    crops = [torch.randint(0, 2, (4 + i, 5), generator=generator, dtype=torch.uint8) for i in range(count)]
    masks = InstanceMasks.from_windows(crops, [(i, 2 * i) for i in range(count)], canvas_of((height, width)))
    target = Target(torch.rand(count, 4, generator=generator), torch.arange(count), masks)
    return Example(image, target, image_id, (2 * height, 2 * width))


EXAMPLES = [example(40, 70, 2, 5), example(33, 20, 0, 9), example(64, 64, 3, 7)]


def test_a_batch_gives_back_what_went_in() -> None:
    batch = Batch.of(EXAMPLES)
    assert batch.image_ids == (5, 9, 7)
    assert batch.original_sizes[1] == (66, 40)
    for image, target, given in zip(batch.images, batch.targets, EXAMPLES, strict=True):
        assert torch.equal(image, given.image)
        assert torch.equal(target.boxes, given.target.boxes)
        assert torch.equal(target.labels, given.target.labels)
        assert torch.equal(target.masks.to_dense(), given.target.masks.to_dense())
        assert target.masks.canvas == given.target.masks.canvas
        assert target.masks.largest == given.target.masks.largest


def test_a_batch_travels_as_six_tensors_whatever_it_holds() -> None:
    for examples in (EXAMPLES, EXAMPLES[:1], EXAMPLES[1:2]):
        batch = Batch.of(examples)
        assert sum(isinstance(value, torch.Tensor) for value in vars(batch).values()) == 6
        assert torch.equal(batch.to("cpu").pixels, batch.pixels)


def test_padding_comes_after_normalisation_and_is_zero() -> None:
    batch = Batch.of(EXAMPLES[:2])
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    images = normalize_images(batch.images, batch.canvas, mean, std)
    assert images.shape == (2, 3, 64, 96)
    expected = (EXAMPLES[0].image.float() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(images[0, :, :40, :70], expected)
    assert float(images[0, :, 40:].abs().max()) == float(images[0, :, :, 70:].abs().max()) == 0


@pytest.mark.parametrize(("size", "canvas"), [((1, 1), (32, 32)), ((32, 64), (32, 64)), ((33, 65), (64, 96))])
def test_a_canvas_is_the_next_multiple_of_32(size: tuple[int, int], canvas: tuple[int, int]) -> None:
    assert canvas_of(size) == canvas


def test_a_target_without_a_mask_per_box_is_refused() -> None:
    with pytest.raises(ValueError, match="2 boxes, 2 labels, 0 masks"):
        Target(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), InstanceMasks.empty((8, 8)))
