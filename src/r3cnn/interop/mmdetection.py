"""Names of weights in mmdetection 2.x and 3.x and in the original R3-CNN, and what they are called here.

``RULES`` is the one table for both directions. A name without an index of the head belongs to a network with one head
(their ``StandardRoIHead``); with an index, to a cascade (``CascadeRoIHead`` and what derives from it).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from r3cnn.interop.rules import Rule, leaves
from r3cnn.interop.translation import Translation


def _non_local(theirs: str, ours: str) -> tuple[Rule, ...]:
    names = {"g": "g", "conv_out": "out", "theta": "theta", "phi": "phi"}
    return tuple(leaves(f"{theirs}.{name}.conv", f"{ours}.{our_name}") for name, our_name in names.items())


def _groie(theirs: str, ours: str) -> tuple[Rule, ...]:
    names = {"query_conv": "query", "value_conv": "value", "appr_geom_fc_x": "position_x"}
    names |= {"appr_geom_fc_y": "position_y", "proj_conv": "out"}
    return (
        Rule(f"{theirs}.post_module.gamma", f"{ours}.attention.gamma"),
        *(leaves(f"{theirs}.post_module.{name}", f"{ours}.attention.{own}") for name, own in names.items()),
        leaves(f"{theirs}.pre_module.conv", f"{ours}.conv"),
    )


_BOX, _OUR_BOX = "roi_head.bbox_head[.{head}]", "roi_heads.box_heads.{head}"
_MASK, _OUR_MASK = "roi_head.mask_head[.{head}]", "roi_heads.mask_branch.heads.{head}"
_IOU, _OUR_IOU = "roi_head.mask_iou_head", "roi_heads.mask_branch.iou_head"
# In the order in which they register the modules of a head; the first match counts.
RULES: tuple[Rule, ...] = (
    leaves("backbone.{block}.conv2.conv_offset", "backbone.{block}.conv2.offset"),
    leaves("backbone.{block}.context_block.conv_mask", "backbone.{block}.context.mask"),
    leaves("backbone.{block}.context_block.channel_add_conv.0", "backbone.{block}.context.reduce"),
    leaves("backbone.{block}.context_block.channel_add_conv.1", "backbone.{block}.context.norm"),
    leaves("backbone.{block}.context_block.channel_add_conv.3", "backbone.{block}.context.expand"),
    Rule("backbone.{rest}", "backbone.{rest}"),
    leaves("neck.lateral_convs.{n}.conv", "fpn.pyramid.inner_blocks.{n}.0"),
    leaves("neck.fpn_convs.{n}.conv", "fpn.pyramid.layer_blocks.{n}.0"),
    leaves("rpn_head.rpn_conv", "rpn.head.conv"),
    leaves("rpn_head.rpn_cls", "rpn.head.objectness"),
    leaves("rpn_head.rpn_reg", "rpn.head.deltas"),
    *_groie("roi_head.bbox_roi_extractor[.0]", "roi_heads.box_extractor"),
    leaves(f"{_BOX}.fc_cls", f"{_OUR_BOX}.logits"),
    leaves(f"{_BOX}.fc_reg", f"{_OUR_BOX}.deltas"),
    leaves(f"{_BOX}.shared_fcs.0", f"{_OUR_BOX}.fc1"),
    leaves(f"{_BOX}.shared_fcs.1", f"{_OUR_BOX}.fc2"),
    *_non_local(f"{_BOX}.shared_fcs.0", f"{_OUR_BOX}.attention"),
    leaves(f"{_BOX}.shared_fcs.1.conv", f"{_OUR_BOX}.conv1"),
    leaves(f"{_BOX}.shared_fcs.2.conv", f"{_OUR_BOX}.conv2"),
    *_groie("roi_head.mask_roi_extractor[.0]", "roi_heads.mask_branch.extractor"),
    leaves(f"{_MASK}.convs.{{n}}.conv", f"{_OUR_MASK}.convs.{{n}}"),
    leaves(f"{_MASK}.upsample", f"{_OUR_MASK}.upsample"),
    leaves(f"{_MASK}.conv_logits", f"{_OUR_MASK}.logits"),
    leaves(f"{_MASK}.conv_res.conv", f"{_OUR_MASK}.feedback"),
    leaves(f"{_IOU}.convs.{{n}}.conv", f"{_OUR_IOU}.convs.{{n}}"),
    *_non_local(f"{_IOU}.fcs.0", f"{_OUR_IOU}.attention1"),
    leaves(f"{_IOU}.fcs.1.conv", f"{_OUR_IOU}.conv1"),
    leaves(f"{_IOU}.fcs.2.conv", f"{_OUR_IOU}.conv2"),
    *_non_local(f"{_IOU}.fcs.3", f"{_OUR_IOU}.attention2"),
    leaves(f"{_IOU}.fc_mask_iou", f"{_OUR_IOU}.iou"),
)
# Their modules in the order of a standard network; a cascade registers its mask heads before their extractor.
_MODULES = ("backbone", "neck", "rpn_head", "bbox_roi_extractor", "bbox_head", "mask_roi_extractor", "mask_head")
_CASCADE = (*_MODULES[:5], "mask_head", "mask_roi_extractor")


FEEDBACK = frozenset(f"{_OUR_MASK.format(head=0)}.feedback.{leaf}" for leaf in ("weight", "bias"))
SECOND_HEAD = f"{_OUR_MASK.format(head=1)}.logits.weight"


def spare_in(weights: Collection[str]) -> frozenset[str]:
    """Our names of what a cascade of theirs may hold without ever running it: feedback of its first mask head."""
    return FEEDBACK.intersection(weights) if SECOND_HEAD in weights else frozenset()


def our_name(key: str) -> str | None:
    """Our name of one of their weights; ``None`` if it has no counterpart."""
    key = re.sub(r"\.conv2_offset\.", ".conv2.conv_offset.", key)  # deformable convolutions before mmcv 1.0
    names = (rule.our_name(key) for rule in RULES)
    return next((name for name in names if name is not None), None)


def to_mmdetection(weights: Mapping[str, Tensor], *, cascade: bool) -> dict[str, Tensor]:
    """Renames our weights and puts them into their order.

    Args:
        weights: Our state dict.
        cascade: Whether the network is one of several loops, whose heads they number.

    Raises:
        ValueError: For weights that no network of theirs has, naming them.
    """
    if "backbone.bn1.running_mean" not in weights:
        raise ValueError("to=mmdet needs a backbone with batch norm: mmdetection names other norms in its own way")
    names, unknown = {}, []
    for position, name in enumerate(weights):
        found = _place(name, cascade=cascade)
        if found is None:
            unknown.append(name)
        else:
            names[name] = (found[0], (*found[1], position))
    if unknown:
        raise ValueError(f"mmdetection has no layer for {len(unknown)} weights: {', '.join(unknown[:5])}")
    return {names[name][0]: weights[name] for name in sorted(names, key=lambda name: names[name][1])}


def _place(name: str, *, cascade: bool) -> tuple[str, tuple[int, ...]] | None:
    """Their name of one of our weights, and its module, head and rule, by which they order them."""
    for index, rule in enumerate(RULES):
        match = rule.our_pattern.fullmatch(name)
        if match is None:
            continue
        theirs = rule.their_name(match.groupdict(), full=cascade)
        parts = theirs.split(".")
        modules = _CASCADE if cascade else _MODULES
        module = parts[1] if parts[0] == "roi_head" else parts[0]
        place = modules.index(module) if module in modules else len(modules)
        is_backbone = module == "backbone"  # there our order is theirs, and a rule is no module
        return theirs, (place, int(match.groupdict().get("head", 0)), 0 if is_backbone else index)
    return None


def translate(state: Mapping[str, Tensor], network: Collection[str] | None = None) -> Translation:
    """What of a state dict of theirs is which of our weights.

    Args:
        state: Theirs.
        network: Names of our network; without it nothing is left out for its sake.

    Raises:
        ValueError: For networks that exist there and not here, saying why.
    """
    _refuse_known_strangers(state)
    names = {key: our_name(key) for key in state}
    spare = spare_in({name for name in names.values() if name}).difference(
        names.values() if network is None else network
    )
    sources, ignored, unknown = {}, {}, []
    for key, name in names.items():
        if key.startswith("data_preprocessor."):
            ignored[key] = "mean and std of the image: kept as the checkpoint's preprocessing"
        elif name is None or name in sources:
            unknown.append(key)
        elif name in spare:
            ignored[key] = "feedback of a cascade's first mask head, which nothing is fed back to in this network"
        else:
            sources[name] = key
    return Translation(
        weights={name: state[key] for name, key in sources.items()}, sources=sources, ignored=ignored, unknown=unknown
    )


def _refuse_known_strangers(state: Mapping[str, Tensor]) -> None:
    if any(key.startswith("roi_head.semantic_head.") for key in state):
        raise ValueError(
            "this network has a semantic branch (roi_head.semantic_head), whose features are added to those of every "
            "RoI: without them its heads see other inputs than they were trained on. The paper's HTC has no such "
            "branch (htc_without_semantic_r50_fpn); only a checkpoint of that configuration can be converted"
        )
    if any(key.startswith(("bbox_head.", "mask_head.")) for key in state) and any(
        key.startswith("rpn_head.") for key in state
    ):
        raise ValueError(
            "the weights are of mmdetection 1.x, which counts the background as class 0: bring them to 2.x first, with "
            "mmdetection's tools/model_converters/upgrade_model_version.py"
        )
