"""Weights of torchvision's Mask R-CNN, and what of them fits here.

Its network differs from `experiment=mask_rcnn` in what has no weights, too: `DIFFERENCES`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.error import URLError

from torch import Tensor
from torchvision.models import get_weight
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from r3cnn.interop.rules import Rule, leaves
from r3cnn.interop.translation import Shape, Translation

CATEGORIES: tuple[str, ...] = tuple(MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])
"""Name of each COCO category id, of the background (0) and of ids without objects (``N/A``)."""
COCO_IDS = {name: number for number, name in enumerate(CATEGORIES) if number > 0 and name != "N/A"}

RULES: tuple[Rule, ...] = (
    Rule("backbone.body.{rest}", "backbone.{rest}"),
    Rule("backbone.fpn.inner_blocks.{n}[.0].{leaf}", "fpn.pyramid.inner_blocks.{n}.0.{leaf}"),
    Rule("backbone.fpn.layer_blocks.{n}[.0].{leaf}", "fpn.pyramid.layer_blocks.{n}.0.{leaf}"),
    leaves("rpn.head.conv[.0.0]", "rpn.head.conv"),
    leaves("rpn.head.cls_logits", "rpn.head.objectness"),
    leaves("rpn.head.bbox_pred", "rpn.head.deltas"),
    leaves("roi_heads.box_head.fc6", "roi_heads.box_heads.0.fc1"),
    leaves("roi_heads.box_head.fc7", "roi_heads.box_heads.0.fc2"),
    leaves("roi_heads.box_predictor.cls_score", "roi_heads.box_heads.0.logits"),
    leaves("roi_heads.box_predictor.bbox_pred", "roi_heads.box_heads.0.deltas"),
    leaves("roi_heads.mask_head.{n}.0", "roi_heads.mask_branch.heads.0.convs.{n}"),
    leaves("roi_heads.mask_predictor.conv5_mask", "roi_heads.mask_branch.heads.0.upsample"),
    leaves("roi_heads.mask_predictor.mask_fcn_logits", "roi_heads.mask_branch.heads.0.logits"),
)
NORM_EPS = 1e-5  # of the batch norm here
ZERO_EPS_FILE = "bf2d0c1e"  # in the name of the file of COCO_V1, whose batch norm divides by the bare deviation
DIFFERENCES = (
    "RoIAlign: there two samples per cell and no half-pixel shift, here adaptive sampling and aligned pixels",
    "anchors: there rounded to whole pixels, here exact",
    "stride of the coarsest level: there image side / map side, here 64",
    "masks are enlarged by one pixel and pasted with another interpolation there",
)


def named_weights(name: str) -> dict[str, Tensor]:
    """State dict of weights by torchvision's name for them.

    Raises:
        ValueError: For a name that torchvision does not know.
        RuntimeError: If they are neither in torch's cache nor can be downloaded.
    """
    try:
        weights = get_weight(name)
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"input={name} is neither a file nor weights of torchvision such as MaskRCNN_ResNet50_FPN_Weights.COCO_V1"
        ) from error
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError) as error:
        raise RuntimeError(
            f"cannot fetch {name} ({error}). Download {weights.url} on a machine with internet access and say "
            "input=FILE, or copy it into torch's hub cache ($TORCH_HOME/hub/checkpoints)"
        ) from error


def norm_eps_of(source: str) -> float:
    """What torchvision adds to the variances under these weights, by their name or the name of their file."""
    return 0.0 if source.endswith("ResNet50_FPN_Weights.COCO_V1") or ZERO_EPS_FILE in source else NORM_EPS


def category_ids_of(classes: Sequence[str]) -> tuple[int, ...]:
    """COCO's ids if these are its 80 classes, else 1, 2, …"""
    if set(classes) == set(COCO_IDS):
        return tuple(COCO_IDS[name] for name in classes)
    return tuple(range(1, len(classes) + 1))


def rows_of(classes: Sequence[str], count: int) -> list[int]:
    """Row of each class in their predictors, whose row 0 is the background.

    Args:
        classes: Names in the order of our labels.
        count: Rows of theirs.

    Raises:
        ValueError: When the classes cannot be those of the rows, with both numbers.
    """
    if count == len(classes) + 1:
        return list(range(1, count))
    if count == len(CATEGORIES) and set(classes) == set(COCO_IDS):
        return [COCO_IDS[name] for name in classes]
    raise ValueError(
        f"the weights have {count} rows of classes (with the background), the experiment {len(classes)} classes: "
        "91 rows are COCO's ids and need COCO's 80 names; otherwise give one name per row but the background's, "
        "data.classes=[…]"
    )


def translate(
    state: Mapping[str, Tensor], network: Mapping[str, Shape], classes: Sequence[str], norm_eps: float
) -> Translation:
    """What of a state dict of theirs is which of our weights.

    Args:
        state: Theirs.
        network: Shapes of our network by name.
        classes: Names in the order of our labels.
        norm_eps: What they add to the variances of batch norm.

    Raises:
        ValueError: For a network that is laid out otherwise, or other classes.
    """
    _refuse_second_version(state)
    sources: dict[str, str] = {}
    unknown = []
    for key in state:
        name = our_name(key)
        if name is None or name in sources:
            unknown.append(key)
        else:
            sources[name] = key
    weights = with_our_eps({name: state[key] for name, key in sources.items()}, norm_eps)
    weights = with_our_classes(weights, classes)
    ignored, unfilled = _other_layers(weights, sources, network)
    kept = {name: tensor for name, tensor in weights.items() if sources[name] not in ignored}
    unfilled |= {name: reason for name in network if (reason := _reason_to_start_anew(name)) and name not in kept}
    return Translation(
        weights=kept,
        sources={name: sources[name] for name in kept},
        ignored=ignored,
        unknown=unknown,
        unfilled=unfilled,
        notes=(*_notes(norm_eps, {name: sources[name] for name in kept}, state), *DIFFERENCES),
    )


def our_name(key: str) -> str | None:
    """Our name of one of their weights, as of any version of torchvision; ``None`` if it has no counterpart."""
    old = re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)", key)
    if old:
        key = f"roi_heads.mask_head.{int(old[1]) - 1}.0.{old[2]}"
    names = (rule.our_name(key) for rule in RULES)
    return next((name for name in names if name is not None), None)


def their_name(name: str) -> str | None:
    """The name that torchvision gives one of our weights now; ``None`` if it has no counterpart."""
    for rule in RULES:
        match = rule.our_pattern.fullmatch(name)
        if match is not None:
            return rule.their_name(match.groupdict(), full=True)
    return None


def with_our_eps(weights: Mapping[str, Tensor], norm_eps: float) -> dict[str, Tensor]:
    """The same batch norm with our epsilon: its scale makes up for the difference."""
    changed = dict(weights)
    for name, variance in weights.items():
        scale = name.removesuffix("running_var") + "weight"
        if norm_eps != NORM_EPS and name.endswith(".running_var") and scale in weights:
            wide = variance.double()
            changed[scale] = (weights[scale] * ((wide + NORM_EPS) / (wide + norm_eps)).sqrt()).float()
    return changed


def with_our_classes(weights: Mapping[str, Tensor], classes: Sequence[str]) -> dict[str, Tensor]:
    """Background last in the class logits, and no row for it where nothing is predicted for it."""
    changed = dict(weights)
    for leaf in ("weight", "bias"):
        logits, deltas = f"roi_heads.box_heads.0.logits.{leaf}", f"roi_heads.box_heads.0.deltas.{leaf}"
        masks = f"roi_heads.mask_branch.heads.0.logits.{leaf}"
        if logits in weights:
            rows = rows_of(classes, len(weights[logits]))
            changed[logits] = weights[logits][[*rows, 0]]
        if deltas in weights:
            per_class = weights[deltas].unflatten(0, (-1, 4))
            changed[deltas] = per_class[rows_of(classes, len(per_class))].flatten(0, 1)
        if masks in weights:
            changed[masks] = weights[masks][rows_of(classes, len(weights[masks]))]
    return changed


def _other_layers(
    weights: Mapping[str, Tensor], sources: Mapping[str, str], network: Mapping[str, Shape]
) -> tuple[dict[str, str], dict[str, str]]:
    """Weights of their heads that are another kind of layer here: their keys and our names, each with the reason."""
    reasons = {}
    for name, tensor in weights.items():
        shape = network.get(name)
        if shape is None and name.startswith("roi_heads."):
            reasons[name] = "the heads here have no such layer"
        elif shape is not None and name.startswith("roi_heads.") and shape[1:] != tuple(tensor.shape[1:]):
            reasons[name] = "a layer of another kind here"
        elif ".deltas." in name and shape is not None and shape[0] == 4 != len(tensor):
            reasons[name] = "boxes are refined per class there and for all classes alike here"
    for name in [name for name in reasons if name.endswith(".weight")]:  # a bias says nothing about its layer's input
        bias = name.removesuffix("weight") + "bias"
        if bias in weights:
            reasons[bias] = reasons[name]
    ignored = {sources[name]: reason for name, reason in reasons.items()}
    return ignored, {name: reason for name, reason in reasons.items() if name in network}


def _reason_to_start_anew(name: str) -> str | None:
    """Why their network cannot have this weight of ours; None if it should."""
    if re.match(r"roi_heads\.(box_heads|mask_branch\.heads)\.[1-9]", name):
        return "torchvision's network has one head"
    if ".feedback." in name:
        return "torchvision's network runs one loop, so nothing is fed back"
    if re.search(r"\.(context|conv2\.offset)\.", name):
        return "torchvision's backbone has no such layer; a new one changes nothing"
    if name.startswith("roi_heads.") and not any(rule.our_pattern.fullmatch(name) for rule in RULES):
        return "torchvision's heads have no such layer"
    return None


def _notes(norm_eps: float, sources: Mapping[str, str], state: Mapping[str, Tensor]) -> list[str]:
    notes = []
    if norm_eps != NORM_EPS:
        notes.append(f"batch norm: epsilon {norm_eps:g} became {NORM_EPS:g}, its scales make up for it")
    logits = sources.get("roi_heads.box_heads.0.logits.weight")
    if logits is not None and len(state[logits]) == len(CATEGORIES):
        notes.append("the ten COCO ids without objects were dropped: a soft-max over 81 logits instead of 91")
    return notes


def _refuse_second_version(state: Mapping[str, Tensor]) -> None:
    if "roi_heads.box_head.0.0.weight" in state or "rpn.head.conv.1.0.weight" in state:
        raise ValueError(
            "this is torchvision's Mask R-CNN V2, which does not fit: it has four convolutions with batch norm before "
            "the fully connected layer of its box head, batch norm in the pyramid and in the mask head, and two "
            "convolutions in its RPN, none of which a network here has. Use MaskRCNN_ResNet50_FPN_Weights.COCO_V1"
        )
