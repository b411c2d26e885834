"""Recordings of the original implementation, and this implementation loaded with the same weights."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from r3cnn.cli.configs import plain, register_resolvers
from r3cnn.detector import RCNN
from r3cnn.interop.mmdetection import from_mmdetection
from r3cnn.ops.boxes import image_limits
from r3cnn.ops.sampling import BalancedSampler
from r3cnn.roi.training_rois import BatchTargets
from r3cnn.structures import InstanceMasks, Rois, Size, Target
from r3cnn.training.checkpoint import build_model

HERE = Path(__file__).parent
DEFAULT = HERE / "golden" / "seed0"
KEYS = HERE / "golden" / "keys"
CONF = HERE.parents[1] / "conf"
# The experiment of each recorded network, and what the variants of a network override.
SYSTEMS = {"mask_rcnn": "mask_rcnn", "htc": "htc", "r3cnn_naive": "r3cnn_naive"}
VARIANTS = {
    "Lt1": "recursion=r3cnn_1_loop",
    "Lt2": "recursion=r3cnn_2_loops",
    "Lt4": "recursion=r3cnn_4_loops",
    "dec": "recursion=r3cnn_decreasing",
}
EVERYTHING = 100_000  # the original's samplers were set to this, so that nothing was random


def recordings_in(folder: Path) -> list[str]:
    """Names of the recorded runs of all networks that exist here."""
    names = [path.stem for path in sorted(folder.glob("*.json"))]
    return [name for name in names if split_name(name)[0] in SYSTEMS]


def split_name(name: str) -> tuple[str, str | None]:
    """``r3cnn_naive_Lt4`` -> (``r3cnn_naive``, ``Lt4``)."""
    head, _, tail = name.rpartition("_")
    return (head, tail) if tail in VARIANTS else (name, None)


@dataclass(frozen=True)
class Recording:
    """One recorded run with its inputs."""

    name: str
    folder: Path
    manifest: dict
    arrays: dict[str, np.ndarray]
    rule: ModuleType

    @property
    def seed(self) -> int:
        return self.manifest["seed"]

    @property
    def inputs(self) -> dict:
        return self.rule.inputs(self.seed)

    @property
    def sizes(self) -> list[Size]:
        return [tuple(shape[:2]) for shape in self.inputs["img_shape"]]

    @property
    def targets(self) -> list[Target]:
        given = self.inputs
        return [
            Target(torch.from_numpy(boxes), torch.from_numpy(labels), InstanceMasks.from_dense(torch.from_numpy(masks)))
            for boxes, labels, masks in zip(given["gt_bboxes"], given["gt_labels"], given["gt_masks"], strict=True)
        ]

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def sampled(self, values: Tensor) -> Tensor:
        """The strided sample in which large tensors were recorded."""
        return torch.from_numpy(np.ascontiguousarray(self.rule.strided_sample(values.detach().numpy())))


@cache
def load_recording(folder: Path, name: str) -> Recording:
    rule_path = next(path for path in (folder / "weights.py", folder.parent / "weights.py") if path.exists())
    spec = importlib.util.spec_from_file_location(f"weights_of_{folder.name}", rule_path)
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    with np.load(folder / f"{name}.npz") as arrays:
        return Recording(name, folder, json.loads((folder / f"{name}.json").read_text()), dict(arrays), rule)


@lru_cache(maxsize=1)
def load_weights(folder: Path, system: str) -> dict[str, Tensor]:
    recording = load_recording(folder, system)
    keys = json.loads((KEYS / f"{system}.json").read_text())
    return from_mmdetection(recording.rule.state_dict(keys, recording.seed))


@lru_cache(maxsize=2)
def load_model(folder: Path, name: str) -> RCNN:
    """The experiment's network with the recording's weights, in evaluation mode."""
    system, variant = split_name(name)
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"experiment={SYSTEMS[system]}", *([VARIANTS[variant]] if variant else [])]
        config = compose("train", overrides=overrides)
    model = build_model(plain(config.model), trusted=None)
    model.load_state_dict(load_weights(folder, system))
    model.roi_heads.sampler = BalancedSampler(EVERYTHING, model.roi_heads.sampler.positive_fraction)
    model.rpn.sampler = BalancedSampler(EVERYTHING, model.rpn.sampler.positive_fraction)
    cap = load_recording(folder, name).manifest["train_rpn_proposals_cap"]
    model.rpn.train_proposals = replace(model.rpn.train_proposals, per_image=cap)
    return model.eval()


@lru_cache(maxsize=2)
def load_features(folder: Path, name: str) -> tuple[Tensor, ...]:
    """Pyramid levels of both images in one batch, without gradient."""
    recording = load_recording(folder, name)
    with torch.no_grad():
        return tuple(load_model(folder, name).features(torch.from_numpy(recording.inputs["img"])))


def one_image(features: tuple[Tensor, ...], image: int) -> list[Tensor]:
    return [level[image : image + 1] for level in features]


def as_rois(boxes: list[Tensor]) -> Rois:
    """Slots for boxes (n, 4) of each image, the shorter lists padded."""
    padded = torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True)
    counts = torch.tensor([len(b) for b in boxes])
    return Rois(padded, torch.arange(padded.shape[1]) < counts[:, None])


def limits_of(sizes: list[Size]) -> Tensor:
    return image_limits(sizes, torch.device("cpu"))


def batch_targets(recording: Recording) -> BatchTargets:
    return BatchTargets.of(recording.targets)
