"""Normalisation of the input as configurations of mmdetection say it, read without running them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from r3cnn.interop.literals import UNREADABLE, calls, floats_of

FIRST_CONVOLUTION = "backbone.conv1.weight"
# Where mmdetection 2.x and 3.x write it, what the order of the channels is called there, and what it is if unsaid.
SPELLINGS = (
    (r"\bimg_norm_cfg\s*=\s*dict\(", "to_rgb", True),
    (r"\bdict\(\s*type\s*=\s*['\"]Normalize['\"]\s*,", "to_rgb", True),
    (r"\bdata_preprocessor\s*=\s*dict\(", "bgr_to_rgb", False),
)
CHANNEL_ORDERS = ("rgb", "bgr")


@dataclass(frozen=True)
class ImageNorm:
    """How the pixels enter a network.

    Attributes:
        mean: Per channel, in [0, 255], in the network's order.
        std: Per channel, > 0.
        order: Order of the channels that the network takes, ``rgb`` or ``bgr``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: str

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std need three numbers each, std > 0; got {self.mean} and {self.std}")
        if self.order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order must be one of {CHANNEL_ORDERS}, got {self.order!r}")


def image_norm_in(config: str) -> ImageNorm | None:
    """The normalisation that a configuration states; None if it states none in full.

    Of several the last one counts: a configuration lists its bases first.
    """
    found = None
    for pattern, key, default in SPELLINGS:
        for values in calls(config, pattern):
            mean, std, is_rgb = floats_of(values.get("mean")), floats_of(values.get("std")), values.get(key, default)
            if mean is not None and std is not None and is_rgb is not UNREADABLE:
                found = ImageNorm(mean, std, "rgb" if is_rgb else "bgr")
    return found


def uses_caffe_style(config: str) -> bool:
    """Whether the backbone has its stride in the 1x1 convolutions; of several statements the last one counts."""
    styles = re.findall(r"\bstyle\s*=\s*['\"](\w+)['\"]", config)
    return bool(styles) and styles[-1] == "caffe"


def to_rgb(weights: Mapping[str, Tensor], norm: ImageNorm) -> tuple[dict[str, Tensor], ImageNorm]:
    """A network that does with RGB images what ``weights`` do with images of ``norm.order``.

    Raises:
        ValueError: When the first convolution is not there or does not take three channels.
    """
    if norm.order == "rgb":
        return dict(weights), norm
    first = weights.get(FIRST_CONVOLUTION)
    if first is None or first.dim() != 4 or first.shape[1] != 3:
        raise ValueError(f"the channels cannot be turned round: {FIRST_CONVOLUTION} does not take three channels")
    return {**weights, FIRST_CONVOLUTION: first.flip(1)}, ImageNorm(norm.mean[::-1], norm.std[::-1], "rgb")
