"""Names of weights in mmdetection 2.x and in the original R3-CNN, and what they are called here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# (pattern of their name, our name); `{0}` is the head. Without an index in their name, it is head 0.
_HEAD = r"(?:(\d+)\.)?"
_RULES: tuple[tuple[str, str], ...] = (
    (r"backbone\.((?:conv1|bn1|layer\d)\..+)", "backbone.{0}"),
    (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", "fpn.pyramid.inner_blocks.{0}.0.{1}"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", "fpn.pyramid.layer_blocks.{0}.0.{1}"),
    (r"rpn_head\.rpn_conv\.(\w+)", "rpn.head.conv.{0}"),
    (r"rpn_head\.rpn_cls\.(\w+)", "rpn.head.objectness.{0}"),
    (r"rpn_head\.rpn_reg\.(\w+)", "rpn.head.deltas.{0}"),
    (rf"roi_head\.bbox_head\.{_HEAD}shared_fcs\.0\.(weight|bias)", "roi_heads.box_heads.{0}.fc1.{1}"),
    (rf"roi_head\.bbox_head\.{_HEAD}shared_fcs\.1\.(weight|bias)", "roi_heads.box_heads.{0}.fc2.{1}"),
    (rf"roi_head\.bbox_head\.{_HEAD}fc_cls\.(\w+)", "roi_heads.box_heads.{0}.logits.{1}"),
    (rf"roi_head\.bbox_head\.{_HEAD}fc_reg\.(\w+)", "roi_heads.box_heads.{0}.deltas.{1}"),
    (rf"roi_head\.mask_head\.{_HEAD}convs\.(\d)\.conv\.(\w+)", "roi_heads.mask_heads.{0}.convs.{1}.{2}"),
    (rf"roi_head\.mask_head\.{_HEAD}upsample\.(\w+)", "roi_heads.mask_heads.{0}.upsample.{1}"),
    (rf"roi_head\.mask_head\.{_HEAD}conv_logits\.(\w+)", "roi_heads.mask_heads.{0}.logits.{1}"),
    (rf"roi_head\.mask_head\.{_HEAD}conv_res\.conv\.(\w+)", "roi_heads.mask_heads.{0}.feedback.{1}"),
)
_COMPILED = tuple((re.compile(pattern), name) for pattern, name in _RULES)


def our_name(key: str) -> str | None:
    """Our name of one of their weights; ``None`` if it has no counterpart."""
    for pattern, name in _COMPILED:
        match = pattern.fullmatch(key)
        if match:
            return name.format(*(group or "0" for group in match.groups()))
    return None


def from_mmdetection(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames a state dict of theirs.

    Raises:
        ValueError: For keys that have no counterpart here, naming them.
    """
    unknown = [key for key in state if our_name(key) is None]
    if unknown:
        raise ValueError(f"{len(unknown)} keys have no counterpart: {', '.join(unknown[:5])}")
    return {str(our_name(key)): value for key, value in state.items()}
