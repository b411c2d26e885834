"""``r3cnn params``: parameters of a network per submodule, named as in the authors' code."""

from __future__ import annotations

import json

from omegaconf import DictConfig
from torch import nn

from r3cnn.cli.configs import plain
from r3cnn.reporting.console import terminal
from r3cnn.training.checkpoint import build_shapes

# Ours -> theirs; what has no parameters (a RoIAlign extractor) is listed with 0.
SUBMODULES = {
    "backbone": "backbone",
    "fpn": "neck",
    "rpn": "rpn_head",
    "roi_heads.box_extractor": "roi_head.bbox_roi_extractor",
    "roi_heads.box_heads": "roi_head.bbox_head",
    "roi_heads.mask_branch.extractor": "roi_head.mask_roi_extractor",
    "roi_heads.mask_branch.heads": "roi_head.mask_head",
    "roi_heads.mask_branch.iou_head": "roi_head.mask_iou_head",
}


def run(config: DictConfig) -> None:
    """Prints the parameter counts as a table or as one JSON object."""
    if config.num_classes < 1:
        raise ValueError("params reads no data, so name the classes of this data set: data.classes=[cat,dog]")
    counts = count_parameters(build_shapes(plain(config.model), trusted=None))
    if config.format == "json":
        print(json.dumps(counts))
    else:
        print_table(counts)


def count_parameters(model: nn.Module) -> dict[str, int | dict[str, int]]:
    """``trainable``, ``total``, and the trainable ones per submodule.

    A parameter that two submodules share counts once, in the first one.
    """
    submodules = {
        theirs: 0 for ours, theirs in SUBMODULES.items() if any(name == ours for name, _ in model.named_modules())
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            submodule = _submodule_of(name)
            submodules[submodule] = submodules.get(submodule, 0) + parameter.numel()
    return {
        "trainable": sum(submodules.values()),
        "total": sum(parameter.numel() for parameter in model.parameters()),
        "submodules": submodules,
    }


def _submodule_of(parameter: str) -> str:
    for ours, theirs in SUBMODULES.items():
        if parameter.startswith(ours + "."):
            return theirs
    return parameter.split(".")[0]


def print_table(counts: dict[str, int | dict[str, int]]) -> None:
    """Prints the counts, largest first in the order of the network."""
    from rich.table import Table

    table = Table("submodule")
    table.add_column("trainable parameters", justify="right")
    submodules = counts["submodules"]
    if isinstance(submodules, dict):
        for name, count in submodules.items():
            table.add_row(name, f"{count:,}")
    table.add_section()
    table.add_row("trainable", f"{counts['trainable']:,}")
    table.add_row("total", f"{counts['total']:,}")
    terminal().print(table)
