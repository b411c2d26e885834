from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional

from r3cnn.benchmarks.harness import run_alone
from r3cnn.benchmarks.masks import draw_masks
from r3cnn.evaluation.paste import chunk_strips, cut_strips, paste_and_encode, to_original, windows_of


def paste_dense(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """The plain way: samples every pixel of the image for every mask."""
    x1, y1, x2, y2 = (side[:, None] for side in boxes.unbind(dim=1))
    down = (torch.arange(size[0]) + 0.5 - y1) / (y2 - y1) * 2 - 1
    across = (torch.arange(size[1]) + 0.5 - x1) / (x2 - x1) * 2 - 1
    shape = (len(boxes), *size)
    grid = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=3)
    pasted = functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0] >= 0.5
    return pasted & ((x2 > x1) & (y2 > y1))[:, :, None]


def encode_dense(masks: Tensor) -> list[bytes]:
    codes = coco_mask.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy().astype(np.uint8)))
    return [code["counts"] for code in codes]


def random_case(seed: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Boxes inside, across and outside the borders, with integer edges, without area, of one pixel; odd masks."""
    generator = torch.Generator().manual_seed(seed)
    height, width = torch.randint(1, 90, (2,), generator=generator).tolist()
    extent = torch.tensor([width, height])
    corners = torch.rand(12, 2, generator=generator) * extent * 1.4 - extent * 0.2
    boxes = torch.cat([corners, corners + torch.rand(12, 2, generator=generator) ** 2 * extent * 1.2], dim=1)
    boxes[:2] = boxes[:2].round()
    boxes[2, 2:] = boxes[2, :2]
    boxes[3] = torch.tensor([0, 0, width, height])
    boxes[4] = torch.tensor([0, 0, 1, 1])
    boxes[7] = torch.tensor([-5, -5, width + 5, height + 5])
    boxes[8] = boxes[8].floor() + 0.5  # edges on pixel centres, where the sample of a full mask is exactly 0.5
    masks = torch.rand(12, 28, 28, generator=generator)
    masks[3] = masks[3] * 0.1 + 0.48
    masks[5], masks[6], masks[7], masks[8] = 1, 0, 1, 1
    return masks, boxes, (height, width)


@pytest.mark.parametrize("seed", range(40))
def test_codes_are_byte_identical_to_pasting_the_full_image_and_encoding(seed: int) -> None:
    masks, boxes, size = random_case(seed)
    dense = paste_dense(masks, boxes, size)
    encoded = paste_and_encode(masks, boxes, size)
    assert list(encoded.counts) == encode_dense(dense)
    assert encoded.areas.tolist() == dense.sum(dim=(1, 2)).tolist()


@settings(max_examples=200)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    boxes=st.lists(st.tuples(*[st.floats(-30, 110, width=32)] * 4), min_size=1, max_size=6),
    sides=st.integers(1, 33),
    seed=st.integers(0, 10**6),
    max_bytes=st.sampled_from([1, 3000, 10**7]),
)
def test_any_boxes_and_masks_give_the_bytes_of_pasting_and_encoding(
    size: tuple[int, int], boxes: list[tuple[float, ...]], sides: int, seed: int, max_bytes: int
) -> None:
    masks = torch.rand(len(boxes), sides, sides, generator=torch.Generator().manual_seed(seed))
    table = torch.tensor(boxes)
    dense = paste_dense(masks, table, size)
    encoded = paste_and_encode(masks, table, size, max_bytes=max_bytes)
    assert list(encoded.counts) == encode_dense(dense)
    assert encoded.areas.tolist() == dense.sum(dim=(1, 2)).tolist()


def test_a_hundred_masks_at_twelve_megapixels_take_less_than_400_megabytes() -> None:
    size = (3000, 4000)
    masks, boxes = draw_masks(100, size, seed=0)
    assert run_alone(partial(paste_and_encode, masks, boxes, size))[1] < 400e6
    found = paste_and_encode(masks, boxes, size)
    assert len(found.counts) == 100
    assert int(found.areas.max()) > 1e6


@pytest.mark.parametrize("max_bytes", [1, 500, 20_000])
def test_codes_do_not_depend_on_the_memory_budget(max_bytes: int) -> None:
    masks, boxes, size = random_case(3)
    assert (
        paste_and_encode(masks, boxes, size, max_bytes=max_bytes).counts == paste_and_encode(masks, boxes, size).counts
    )


def test_a_full_mask_fills_exactly_its_pixel() -> None:
    encoded = paste_and_encode(torch.ones(1, 28, 28), torch.tensor([[2.0, 1.0, 3.0, 2.0]]), (4, 5))
    pixels = coco_mask.decode({"size": [4, 5], "counts": encoded.counts[0]})
    assert np.argwhere(pixels).tolist() == [[1, 2]]
    assert encoded.areas.tolist() == [1]


def test_a_mask_over_the_whole_image_is_one_run() -> None:
    encoded = paste_and_encode(torch.ones(1, 28, 28), torch.tensor([[0.0, 0.0, 5.0, 4.0]]), (4, 5))
    assert encoded.counts == (encode_dense(torch.ones(1, 4, 5))[0],)
    assert encoded.areas.tolist() == [20]


def test_a_box_without_area_gives_an_empty_mask() -> None:
    boxes = torch.tensor([[2.0, 2.0, 2.0, 9.0], [3.5, 3.5, 3.5, 3.5], [8.0, 2.0, 4.0, 6.0]])
    encoded = paste_and_encode(torch.ones(3, 28, 28), boxes, (10, 10))
    assert encoded.areas.tolist() == [0, 0, 0]
    assert set(encoded.counts) == set(encode_dense(torch.zeros(1, 10, 10)))


def test_no_mask_gives_no_code() -> None:
    encoded = paste_and_encode(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 10))
    assert encoded.counts == ()
    assert encoded.areas.shape == (0,)


def test_each_axis_is_scaled_by_its_own_factor() -> None:
    boxes = to_original(torch.tensor([[10.0, 10.0, 20.0, 20.0]]), size=(100, 200), original_size=(50, 400))
    assert boxes.tolist() == [[20.0, 5.0, 40.0, 10.0]]


def test_windows_hold_every_pixel_of_the_box_and_end_at_the_image() -> None:
    boxes = torch.tensor([[1.2, 2.9, 3.1, 4.0], [-7.0, 5.5, 99.0, 99.0], [50.0, 50.0, 60.0, 60.0]])
    windows = windows_of(boxes, (10, 20))
    assert windows[:2] == [(1, 2, 4, 4), (0, 5, 20, 10)]
    assert windows[2][0] == windows[2][2]


def test_chunks_cover_every_window_once_and_keep_to_the_budget() -> None:
    windows = [(0, 0, 300, 10), (5, 5, 6, 6), (0, 0, 40, 200), (3, 0, 33, 30), (7, 2, 9, 400)]
    strips = cut_strips(windows, max_pixels=2000)
    covered = [0] * len(windows)
    for chunk in chunk_strips(strips, max_pixels=2000):
        width, height = max(strip.width for strip in chunk), max(strip.height for strip in chunk)
        assert len(chunk) * width * height <= 2000
        for strip in chunk:
            covered[strip.mask] += strip.width * strip.height
    assert covered == [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in windows]


def test_a_threshold_below_one_half_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold must be in \[0.5, 1\], got 0.3"):
        paste_and_encode(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 10), threshold=0.3)


def test_unequal_numbers_of_masks_and_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 masks and 1 boxes"):
        paste_and_encode(torch.zeros(2, 28, 28), torch.zeros(1, 4), (10, 10))
