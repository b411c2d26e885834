import pytest
import torch

from r3cnn.ops.views import View, look, views_of

SIZES = [(40, 60), (64, 50)]


def batch() -> torch.Tensor:
    images = torch.zeros(2, 3, 64, 64)
    for image, (height, width) in zip(images, SIZES, strict=True):
        image[:, :height, :width] = torch.arange(height * width).view(height, width) / 1000 + 1
    return images


def test_the_plain_view_is_the_batch_itself() -> None:
    images, boxes = batch(), torch.rand(2, 5, 4) * 40
    seen = look(images, SIZES, View())
    assert seen.images is images
    assert torch.equal(seen.boxes(boxes), boxes)
    assert torch.equal(seen.plain_boxes(boxes), boxes)


def test_a_mirrored_image_is_mirrored_inside_its_own_width() -> None:
    images = batch()
    seen = look(images, SIZES, View(flip=True))
    for shown, image, (height, width) in zip(seen.images, images, SIZES, strict=True):
        assert torch.equal(shown[:, :height, :width], image[:, :height, :width].flip(-1))
        assert float(shown[:, height:].abs().sum() + shown[:, :, width:].abs().sum()) == 0
    assert seen.boxes(torch.tensor([[[5.0, 1, 20, 9]]] * 2)).tolist() == [[[40, 1, 55, 9]], [[30, 1, 45, 9]]]


def test_a_scaled_view_has_a_canvas_of_its_own_and_factors_of_rounded_sides() -> None:
    seen = look(batch(), SIZES, View(scale=0.51))
    assert seen.sizes == [(20, 31), (33, 26)]
    assert seen.images.shape == (2, 3, 64, 32)
    assert seen.limits.tolist() == [[31, 20, 31, 20], [26, 33, 26, 33]]
    corner = seen.boxes(torch.tensor([[[0.0, 0, 60, 40]], [[0, 0, 50, 64]]]))
    torch.testing.assert_close(corner[:, 0], torch.tensor([[0.0, 0, 31, 20], [0, 0, 26, 33]]))


@pytest.mark.parametrize("view", [View(1.7, flip=True), View(0.5), View(1.0, flip=True)])
def test_boxes_come_back_from_every_view(view: View) -> None:
    seen = look(batch(), SIZES, view)
    corners = torch.rand(2, 7, 2) * 20
    boxes = torch.cat([corners, corners + torch.rand(2, 7, 2) * 20], dim=2)
    torch.testing.assert_close(seen.plain_boxes(seen.boxes(boxes)), boxes, rtol=1e-5, atol=1e-4)
    by_class = torch.stack([boxes, boxes + 1], dim=2)  # (B, R, K, 4)
    there = torch.stack([seen.boxes(boxes), seen.boxes(boxes + 1)], dim=2)
    torch.testing.assert_close(seen.plain_boxes(there), by_class, rtol=1e-5, atol=1e-4)


def test_every_scale_is_looked_at_as_it_is_and_mirrored() -> None:
    assert views_of([1.0, 1.5], flip=True) == (View(1.0), View(1.0, True), View(1.5), View(1.5, True))
    assert views_of([1.0], flip=False) == (View(),)


def test_views_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one factor is needed"):
        views_of([], flip=True)
    with pytest.raises(ValueError, match="each of them once"):
        views_of([1.0, 1.0], flip=False)
    with pytest.raises(ValueError, match=r"scale must be in \(0, inf\), got 0"):
        View(0)
