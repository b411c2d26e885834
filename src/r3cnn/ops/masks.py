"""What RoIs see of compactly stored instance masks, on the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from r3cnn.structures import InstanceMasks

# RoIAlign repeats the border of what it samples from, so a window needs a rim of what lies around it.
_MARGIN = 1


def mask_targets(masks: InstanceMasks, boxes: Tensor, instances: Tensor, side: int) -> Tensor:
    """Binary targets of the mask head: RoIAlign of each RoI's instance mask, thresholded at 0.5.

    Equals RoIAlign (aligned, adaptive sampling) of the dense masks on the whole canvas, up to float32 rounding, for
    RoIs inside the canvas.

    Args:
        masks: Instances of one image.
        boxes: (R, 4) in pixels of the network input.
        instances: (R,) int64 index of each RoI's instance.
        side: M, side of the target grid.

    Returns:
        (R, M, M) float32 in {0, 1}.
    """
    if len(masks) == 0 or boxes.shape[0] == 0:
        return boxes.new_zeros(boxes.shape[0], side, side)
    corners = masks.windows[instances, :2] - _MARGIN
    local = torch.where(_has_area(boxes), boxes.float() - corners.repeat(1, 2), 0.0)
    rois = torch.cat([instances[:, None].to(local.dtype), local], dim=1)
    return (roi_align(_padded_windows(masks)[:, None], rois, side, 1.0, -1, aligned=True)[:, 0] >= 0.5).float()


def visible_fractions(masks: InstanceMasks, boxes: Tensor, instances: Tensor) -> Tensor:
    """How much of its instance's mask area each RoI holds, counted in whole pixels (Mask Scoring R-CNN, 1903.00241).

    The corners of a RoI are truncated to integers; it is one pixel wide and high at least, and cut at the canvas.

    Args:
        masks: Instances of one image.
        boxes: (R, 4) in pixels of the network input.
        instances: (R,) int64 index of each RoI's instance.

    Returns:
        (R,) float32 in [0, 1]; 0 for an instance without a pixel.
    """
    if len(masks) == 0 or boxes.shape[0] == 0:
        return boxes.new_zeros(boxes.shape[0])
    height, width = masks.canvas
    area = F.pad(_padded_windows(masks)[:, _MARGIN:, _MARGIN:].cumsum(1).cumsum(2), (1, 0, 1, 0))  # (G, H + 2, W + 2)
    x, y = boxes[:, 0::2].long().clamp(0, width), boxes[:, 1::2].long().clamp(0, height)  # (R, 2) first and last
    start = torch.stack([x[:, 0], y[:, 0]], dim=1)
    stop = torch.maximum(torch.stack([x[:, 1], y[:, 1]], dim=1), start + 1)
    window = masks.windows[instances]
    x1, y1 = _inside_window(start, window).unbind(1)
    x2, y2 = _inside_window(stop, window).unbind(1)
    inside = area[instances, y2, x2] - area[instances, y1, x2] - area[instances, y2, x1] + area[instances, y1, x1]
    whole = area[instances, window[:, 3], window[:, 2]]
    return inside / whole.clamp(min=1)


def _inside_window(points: Tensor, windows: Tensor) -> Tensor:
    """(R, 2) pixels of the canvas as pixels of the windows (R, 4), moved into them."""
    return (points - windows[:, :2]).clamp(min=0).minimum(windows[:, 2:])


def _has_area(boxes: Tensor) -> Tensor:
    """(R, 1) bool."""
    return ((boxes[:, 2:] > boxes[:, :2]).all(dim=1))[:, None]


def _padded_windows(masks: InstanceMasks) -> Tensor:
    """(G, H, W) float32 windows with a rim, padded to a common size; at the canvas border the rim repeats it."""
    device = masks.pixels.device
    # 32 bits reach 2^31 pixels in the windows of an image, and (G, H, W) indices are the largest thing here.
    left, top, width, height = masks.windows.int().T[:, :, None, None]  # (G, 1, 1) each
    starts = (width * height).cumsum(0, dtype=torch.int32) - width * height
    y = torch.arange(masks.largest[0] + 2 * _MARGIN, device=device, dtype=torch.int32)[:, None] - _MARGIN
    x = torch.arange(masks.largest[1] + 2 * _MARGIN, device=device, dtype=torch.int32)[None, :] - _MARGIN
    y = (y + top).clamp(0, masks.canvas[0] - 1) - top  # (G, H, 1)
    x = (x + left).clamp(0, masks.canvas[1] - 1) - left  # (G, 1, W)
    inside = (y >= 0) & (x >= 0) & (y < height) & (x < width)  # (G, H, W)
    if masks.pixels.numel() == 0:
        return torch.zeros(inside.shape, device=device)
    place = torch.where(inside, starts + y * width + x, 0)
    return torch.where(inside, masks.pixels.index_select(0, place.flatten()).view_as(place), 0).float()
