"""Checkpoints as other code bases write them, small enough for a test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from r3cnn.cli.candidates import Network
from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.detector import RCNN
from r3cnn.interop.mmdetection import to_mmdetection
from r3cnn.interop.translation import shapes_of
from r3cnn.training.checkpoint import CheckpointInfo, Preprocessing, build_model, save_weights

KEYS = Path(__file__).parents[1] / "parity" / "golden" / "keys"
NETWORKS = tuple(sorted(path.stem for path in KEYS.glob("*.json")))
# Mask R-CNN on a ResNet that mmdetection has, in small.
SMALL_MASK_RCNN = (
    "experiment=mask_rcnn",
    "backbone=resnet18_gn",
    "backbone.norm=bn_eval",
    "channels=32",
    "fc_channels=32",
    "num_mask_convs=1",
    "rois_per_image=16",
    "rpn.train_proposals.per_image=32",
    "rpn.eval_proposals.per_image=16",
    "data=coco128",
)
BGR = "img_norm_cfg = dict(mean=[103.5, 116.3, 123.7], std=[1.0, 1.1, 1.2], to_rgb=False)\n"


def recorded(network: str, *, full: bool = False) -> dict[str, Tensor]:
    """A state dict of the original implementation; without ``full`` every tensor is one stored zero."""
    state = {}
    for number, (key, shape, dtype) in enumerate(json.loads((KEYS / f"{network}.json").read_text())):
        kind = getattr(torch, dtype)
        if full:
            count = torch.Size(shape).numel()
            state[key] = (torch.arange(count) % 1009 + number).to(kind).reshape(shape)
        else:
            state[key] = torch.zeros((), dtype=kind).expand(shape)
    return state


def small_model(*overrides: str) -> tuple[dict[str, object], RCNN]:
    """Configuration and network of `SMALL_MASK_RCNN`, or of another experiment in small."""
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [*SMALL_MASK_RCNN, *overrides, "output_dir=somewhere"])
    torch.manual_seed(0)
    model = plain(config.model)
    return model, build_model(model, trusted=None)


def small_state(*overrides: str, cascade: bool = False) -> dict[str, Tensor]:
    """The weights of `small_model` as mmdetection names them."""
    return to_mmdetection(small_model(*overrides)[1].state_dict(), cascade=cascade)


def small_network(experiment: str) -> Network:
    """An experiment in small as a candidate for weights."""
    config, model = small_model(f"experiment={experiment}")
    return Network(shapes_of(model.state_dict()), config)


def small_checkpoint(path: Path, experiment: str) -> Path:
    """An untrained checkpoint of ours."""
    config, model = small_model(f"experiment={experiment}")
    classes = tuple(f"thing{number}" for number in range(model.num_classes))
    images = Preprocessing((1, 2, 3), (4, 5, 6), (64, 96))
    info = CheckpointInfo(config, {}, classes, tuple(range(1, len(classes) + 1)), images)
    save_weights(path, info, model.state_dict())
    return path


def write(path: Path, state: Mapping[str, Tensor], **meta: object) -> Path:
    """Saves a state dict with its meta entries."""
    torch.save({"state_dict": dict(state), "meta": meta}, path)
    return path
