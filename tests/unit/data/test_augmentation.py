from __future__ import annotations

import numpy as np
import pytest
import torch
from coco_records import annotation, image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from torch.nn.functional import max_pool2d

from r3cnn.data.annotations import Objects
from r3cnn.data.augmentation import Augmentation, ColorJitter, FixedScale, Frame, LargeScaleJitter, MultiScale, cut
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.reading import read_annotations
from r3cnn.data.samplers import Draw
from r3cnn.data.transforms import Window, resized_size, transform_objects

SIDES = st.integers(4, 40)
COLOR = ColorJitter(0.5, (0.875, 1.125), (0.5, 1.5), (0.5, 1.5), (-0.05, 0.05))
JITTER = Augmentation(LargeScaleJitter((0.1, 2.0), (48, 64)), COLOR)


def blob(random, size):
    """A mask of one rectangle with a bite out of it, and its box ``(x1, y1, x2, y2)``."""
    mask = np.zeros(size, dtype=np.uint8)
    x1, y1 = int(random.integers(0, size[1] - 2)), int(random.integers(0, size[0] - 2))
    x2, y2 = int(random.integers(x1 + 2, size[1] + 1)), int(random.integers(y1 + 2, size[0] + 1))
    mask[y1:y2, x1:x2] = 1
    mask[y1 : (y1 + y2) // 2, x1 : (x1 + x2) // 2] = 0
    return mask, (x1, y1, x2, y2)


def objects_of(masks, boxes, crowds=()):
    segments = tuple(coco_mask.encode(np.asfortranarray(mask))["counts"] for mask in masks)
    as_boxes = [np.array(rows, dtype=np.float32).reshape(-1, 4) for rows in (boxes, crowds)]
    return Objects(as_boxes[0], np.arange(len(masks)), segments, as_boxes[1])


def nearest(mask, new):
    """The whole mask after a nearest-neighbour resize, as OpenCV does it."""
    rows, columns = (
        np.minimum(np.floor(np.arange(n) * (1 / (n / o))), o - 1).astype(int)
        for n, o in zip(new, mask.shape, strict=True)
    )
    return mask[rows][:, columns]


@st.composite
def cuts(draw):
    old, new = (draw(SIDES), draw(SIDES)), (draw(SIDES), draw(SIDES))
    width, height = draw(st.integers(1, new[1])), draw(st.integers(1, new[0]))
    window = Window(draw(st.integers(0, new[1] - width)), draw(st.integers(0, new[0] - height)), width, height)
    return old, new, window


@given(cuts(), st.booleans(), st.integers(0, 1000))
def test_masks_equal_the_whole_mask_resized_cut_and_mirrored(case, flip, seed):
    old, new, window = case
    random = np.random.default_rng(seed)
    masks, boxes = zip(*[blob(random, old) for _ in range(4)], strict=True)
    target = transform_objects(objects_of(masks, boxes), old, new, flip=flip, window=window)
    dense = target.masks.to_dense().numpy()[:, : window.height, : window.width]
    for label, found in zip(target.labels.tolist(), dense, strict=True):
        whole = nearest(masks[label], new)
        expected = whole[window.top : window.top + window.height, window.left : window.left + window.width]
        assert (found == (expected[:, ::-1] if flip else expected)).all()


@given(cuts(), st.booleans(), st.integers(0, 1000))
def test_the_box_of_an_object_is_what_the_cut_leaves_of_it(case, flip, seed):
    old, new, window = case
    random = np.random.default_rng(seed)
    masks, boxes = zip(*[blob(random, old) for _ in range(4)], strict=True)
    target = transform_objects(objects_of(masks, boxes), old, new, flip=flip, window=window)
    whole = transform_objects(objects_of(masks, boxes), old, new, flip=False)
    dense = target.masks.to_dense().numpy()
    for label, box, mask in zip(target.labels.tolist(), target.boxes.tolist(), dense, strict=True):
        assert 0 <= box[0] < box[2] <= window.width
        assert 0 <= box[1] < box[3] <= window.height
        x1, y1, x2, y2 = whole.boxes[whole.labels.tolist().index(label)].tolist()
        moved = (x1 - window.left, y1 - window.top, x2 - window.left, y2 - window.top)
        moved = (window.width - moved[2], moved[1], window.width - moved[0], moved[3]) if flip else moved
        is_inside = moved[0] >= 0 and moved[1] >= 0 and moved[2] <= window.width and moved[3] <= window.height
        if is_inside:
            assert box == pytest.approx(moved, abs=1e-4)
        else:
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert box[0] >= max(moved[0], columns[0]) - 1e-4
            assert box[1] >= max(moved[1], rows[0]) - 1e-4
            assert box[2] <= min(moved[2], columns[-1] + 1) + 1e-4
            assert box[3] <= min(moved[3], rows[-1] + 1) + 1e-4


def test_an_object_that_is_cut_off_entirely_is_gone_with_its_mask_and_its_label():
    masks = [np.zeros((20, 40), dtype=np.uint8) for _ in range(2)]
    masks[0][2:8, 2:8] = 1
    masks[1][10:18, 30:38] = 1
    found = transform_objects(
        objects_of(masks, [(2, 2, 8, 8), (30, 10, 38, 18)], crowds=[(0, 0, 10, 5), (30, 0, 40, 5)]),
        (20, 40),
        (20, 40),
        flip=False,
        window=Window(20, 0, 20, 20),
    )
    assert found.labels.tolist() == [1]
    assert found.boxes.tolist() == [[10, 10, 18, 18]]
    assert found.masks.pixels.sum() == 64
    assert found.crowds.tolist() == [[10, 0, 20, 5]]


def test_an_l_shaped_object_gets_the_box_of_the_part_that_is_left():
    mask = np.zeros((20, 40), dtype=np.uint8)
    mask[0:4, 0:30] = 1  # one arm reaches into the cut, the other stays outside
    mask[4:20, 0:4] = 1
    window = Window(10, 0, 30, 20)
    found = transform_objects(objects_of([mask], [(0, 0, 30, 20)]), (20, 40), (20, 40), flip=False, window=window)
    assert found.boxes.tolist() == [[0, 0, 20, 4]]


def test_the_short_side_is_one_of_those_to_choose_from_and_every_one_comes_up():
    scaling = MultiScale([30, 40, 50], "choice")
    random = np.random.default_rng(0)
    frames = [scaling.frame((100, 200), (60, 1000), random) for _ in range(60)]
    assert {frame.size for frame in frames} == {(30, 60), (40, 80), (50, 100)}
    assert all(frame.window == (0, 0, frame.size[1], frame.size[0]) for frame in frames)


def test_a_range_of_short_sides_holds_both_ends_and_the_long_side_stays_bounded():
    random = np.random.default_rng(0)
    shorts = {MultiScale([30, 33], "range").frame((100, 200), (60, 64), random).size for _ in range(60)}
    assert shorts == {(30, 60), (31, 62), (32, 64)}  # 33 would be 66 wide


@pytest.mark.parametrize("size", [(50, 90), (90, 50), (7, 300), (1, 1)])
def test_jitter_keeps_the_aspect_ratio_and_cuts_inside_the_image(size):
    random = np.random.default_rng(1)
    scaling = LargeScaleJitter((0.1, 2.0), (48, 64))
    fit = min(48 / size[0], 64 / size[1])
    for _ in range(50):
        (height, width), window = (frame := scaling.frame(size, (1, 1), random)).size, frame.window
        assert max(0.1 * fit * size[0] - 1, 1) <= height <= 2 * fit * size[0] + 1
        assert abs(height / size[0] - width / size[1]) <= 1 / min(size)
        assert (window.height, window.width) == (min(height, 48), min(width, 64))
        assert 0 <= window.left <= width - window.width
        assert 0 <= window.top <= height - window.height


def test_without_a_recipe_nothing_is_drawn_and_the_image_is_the_papers():
    frame = Augmentation(FixedScale()).frame((480, 640), (800, 1333), (0, 0, 1))
    assert frame.size == resized_size((480, 640), (800, 1333)) == (frame.window.height, frame.window.width)
    pixels = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    assert Augmentation().image(pixels, Frame.whole((4, 5)), (0, 0, 1)) is pixels


@pytest.mark.parametrize("size", [(6, 8), (12, 16), (24, 32)])
def test_colours_change_pixels_and_nothing_else(size):
    pixels = torch.randint(0, 256, (3, 12, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    always = Augmentation(color=ColorJitter(1.0, COLOR.brightness, COLOR.contrast, COLOR.saturation, COLOR.hue))
    frame, before = Frame.whole(size), pixels.clone()
    changed = always.image(pixels, frame, (0, 0, 1))
    assert changed.dtype == torch.uint8
    assert tuple(changed.shape[1:]) == size
    assert not torch.equal(changed, Augmentation().image(pixels, frame, (0, 0, 1)))
    assert torch.equal(changed, always.image(pixels, frame, (0, 0, 1)))
    assert torch.equal(pixels, before)


def test_a_probability_of_zero_in_a_call_returns_the_image_itself():
    never = ColorJitter(0.0, COLOR.brightness, COLOR.contrast, COLOR.saturation, COLOR.hue)
    pixels = torch.zeros(3, 2, 2, dtype=torch.uint8)
    assert never(pixels, np.random.default_rng(0)) is pixels


def test_a_brightness_of_two_doubles_the_pixels():
    twice = ColorJitter(1.0, (2.0, 2.0), (1.0, 1.0), (1.0, 1.0), (0.0, 0.0))
    pixels = torch.full((3, 2, 2), 40, dtype=torch.uint8)
    assert twice(pixels, np.random.default_rng(0)).tolist() == torch.full((3, 2, 2), 80).tolist()


def data_set(write_coco, augmentation, *, seed=0):
    file = write_coco([image(1), image(2)], [annotation(1), annotation(2, image_id=2)])
    return CocoDataset(
        read_annotations(file, ("cat", "dog")),
        file.parent / "images",
        indices=np.arange(2),
        image_size=(60, 80),
        flip=0.5,
        augmentation=augmentation,
        seed=seed,
    )


def test_an_image_is_a_function_of_seed_epoch_and_image_id_whatever_was_drawn_before(write_coco):
    one, other = data_set(write_coco, JITTER), data_set(write_coco, JITTER)
    for epoch in range(5):
        other[Draw(epoch, 0)]  # an interloper
    first = [one[Draw(epoch, 1)] for epoch in range(5)]
    again = [other[Draw(epoch, 1)] for epoch in reversed(range(5))][::-1]
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.target.boxes, b.target.boxes)
        assert torch.equal(a.target.masks.pixels, b.target.masks.pixels)
    assert len({tuple(example.image.shape) for example in first}) > 1
    reseeded = data_set(write_coco, JITTER, seed=1)
    assert [tuple(reseeded[Draw(epoch, 1)].image.shape) for epoch in range(5)] != [tuple(a.image.shape) for a in first]


def test_colours_leave_flip_and_scale_as_they_are_without_them(write_coco):
    plain = data_set(write_coco, Augmentation(JITTER.scaling))
    colored = data_set(write_coco, JITTER)
    for epoch in range(6):
        one, other = plain[Draw(epoch, 0)], colored[Draw(epoch, 0)]
        assert one.image.shape == other.image.shape
        assert torch.equal(one.target.boxes, other.target.boxes)


def test_the_pixels_of_an_object_stay_under_its_mask(write_coco):
    """A white square on black, scaled, cut and mirrored: inside its box it is white, outside black."""
    images = data_set(write_coco, Augmentation(LargeScaleJitter((0.8, 2.0), (48, 64))))
    path = images._folder / "1.png"
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[20:40, 10:30] = 255
    Image.fromarray(pixels).save(path)
    seen = 0
    for epoch in range(20):
        example = images[Draw(epoch, 0)]
        white = example.image[0] > 127
        if not len(example.target):
            continue
        seen += 1
        mask = example.target.masks.to_dense()[:1, : white.shape[0], : white.shape[1]].float()
        grown, shrunk = (sign * max_pool2d(sign * mask, 3, stride=1, padding=1) for sign in (1, -1))
        assert (shrunk[0] <= white).all()  # their edges are rounded differently, by a pixel at most
        assert (white <= grown[0]).all()
    assert seen > 10


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MultiScale([], "choice"), "short_sides is empty"),
        (lambda: MultiScale([800, 640], "range"), "least, largest"),
        (lambda: LargeScaleJitter((0.0, 2.0), (64, 64)), "scales is"),
        (lambda: LargeScaleJitter((0.1, 2.0), (64,)), "crop is"),
        (lambda: ColorJitter(1.5, (1, 1), (1, 1), (1, 1), (0, 0)), "probability must be in"),
        (lambda: ColorJitter(0.5, (1, 1), (1.5, 0.5), (1, 1), (0, 0)), "contrast is"),
        (lambda: ColorJitter(0.5, (1, 1), (1, 1), (1, 1), (0, 0.6)), "hue is"),
        (lambda: MultiScale([640], "choice").frame((10, 10), (100, 600), np.random.default_rng()), "640.*600"),
    ],
)
def test_numbers_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_cut_of_the_whole_image_copies_nothing():
    pixels = torch.zeros(3, 4, 5, dtype=torch.uint8)
    assert cut(pixels, Window(0, 0, 5, 4)) is pixels
    assert cut(pixels, Window(1, 1, 3, 2)).is_contiguous()
