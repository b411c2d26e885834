"""Recordings of the original implementation: their files, inputs and weights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from r3cnn.structures import InstanceMasks, Size, Target

COPY = Path(__file__).parent / "golden"  # what belongs to all seeds, where a folder does not bring its own
SYSTEMS = (
    "mask_rcnn",
    "htc",
    "r3cnn_naive",
    "r3cnn_advanced",
    "mask_rcnn_groie",
    "r3cnn_advanced_groie",
    "mask_rcnn_gcnet",
    "htc_gcnet",
    "r3cnn_advanced_gcnet",
    "mask_rcnn_dcn",
    "htc_dcn",
    "r3cnn_advanced_dcn",
)
# The experiment of each variant of the naive network.
VARIANTS = {"Lt1": "1_loop", "Lt2": "2_loops", "Lt4": "4_loops", "dec": "decreasing"}
# Files that are no recording of a network. Of these, `experiments` holds figures that a text quotes, and `noise` is
# read from the repository's copy alone: a folder cannot widen its own tolerances. Tests of their own read the others.
SHARED = ("weights_check", "pipeline", "lr_schedule", "params", "noise", "experiments")
BATCH_STATISTICS = "_trainBN_features"


def names_in(golden: Path) -> list[str]:
    """Recordings in a folder and in its direct subfolders, as paths without suffix; known or not."""
    folders = [golden, *sorted(path for path in golden.iterdir() if path.is_dir() and path.name != "keys")]
    files = [path for folder in folders for path in (*folder.glob("*.json"), *folder.glob("*.npz"))]
    return sorted({path.with_suffix("").relative_to(golden).as_posix() for path in files if path.stem not in SHARED})


def recordings_in(golden: Path) -> list[str]:
    """Recorded runs of networks that are known."""
    return [name for name in names_in(golden) if is_known(Path(name).name) and (golden / f"{name}.npz").exists()
            and (golden / f"{name}.json").exists()]  # fmt: skip


def batch_statistics_in(golden: Path) -> list[str]:
    """Recorded features of networks whose batch normalisation is in training mode."""
    names = [name for name in names_in(golden) if name.endswith(BATCH_STATISTICS)]
    return [name for name in names if Path(name).name.removesuffix(BATCH_STATISTICS) in SYSTEMS]


def is_known(name: str) -> bool:
    system, _, variant = name.rpartition("_")
    return name in SYSTEMS or (system in SYSTEMS and variant in VARIANTS)


def split_name(name: str) -> tuple[str, str | None]:
    """``r3cnn_naive_Lt4`` -> (``r3cnn_naive``, ``Lt4``).

    Raises:
        ValueError: If there is no such network or variant.
    """
    if name in SYSTEMS:
        return name, None
    if not is_known(name):
        raise ValueError(f"recording {name!r}: no such network (known: {', '.join(SYSTEMS)}) or variant of one")
    system, _, variant = name.rpartition("_")
    return system, variant


def experiment_of(name: str) -> str:
    system, variant = split_name(name)
    return f"{system}_{VARIANTS[variant]}" if variant else system


@dataclass(frozen=True, eq=False)
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

    @cached_property
    def inputs(self) -> dict:
        return self.rule.inputs(self.seed)

    @cached_property
    def images(self) -> Tensor:
        return torch.from_numpy(self.inputs["img"])

    @property
    def sizes(self) -> list[Size]:
        return [tuple(shape[:2]) for shape in self.inputs["img_shape"]]

    @property
    def image_numbers(self) -> range:
        return range(len(self.sizes))

    @cached_property
    def targets(self) -> list[Target]:
        given = self.inputs
        return [
            Target(torch.from_numpy(boxes), torch.from_numpy(labels), InstanceMasks.from_dense(torch.from_numpy(masks)))
            for boxes, labels, masks in zip(given["gt_bboxes"], given["gt_labels"], given["gt_masks"], strict=True)
        ]

    @property
    def targets_with_crowds(self) -> list[Target]:
        regions = [torch.from_numpy(boxes) for boxes in self.inputs["gt_bboxes_ignore"]]
        return [replace(target, crowds=boxes) for target, boxes in zip(self.targets, regions, strict=True)]

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def per_image(self, pattern: str) -> list[Tensor]:
        """The array of every image; the pattern holds ``{}`` for its number."""
        return [self.tensor(pattern.format(image)) for image in self.image_numbers]

    def sampled(self, values: Tensor) -> Tensor:
        """The strided sample in which large tensors were recorded."""
        return torch.from_numpy(np.ascontiguousarray(self.rule.strided_sample(values.detach().numpy())))


@cache
def load_recording(golden: Path, name: str) -> Recording:
    path = golden / name
    manifest = json.loads(path.with_name(f"{path.name}.json").read_text())
    with np.load(path.with_name(f"{path.name}.npz")) as arrays:
        return Recording(path.name, path.parent, manifest, dict(arrays), rule_of(path.parent, manifest["seed"]))


@cache
def rule_of(folder: Path, seed: int) -> ModuleType:
    """The weight and input rule of recordings.

    Raises:
        ValueError: If it has no inputs for their seed.
    """
    rule = load_rule(find_shared(folder, "weights.py"))
    if not knows(rule, seed):
        raise ValueError(
            f"{rule.__file__} has no inputs for seed {seed} of the recordings in {folder}: "
            "the weights.py that they were made with must stand there or in the folder above"
        )
    return rule


def knows(rule: ModuleType, seed: int) -> bool:
    try:
        return bool(rule.inputs(seed))
    except KeyError:
        return False


@cache
def load_rule(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"weights_in_{path.parent.name}", path)
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    return rule


def find_shared(folder: Path, name: str) -> Path:
    """A file that belongs to all seeds: in the folder, in the one above, else the repository's copy."""
    candidates = (folder / name, folder.parent / name, COPY / name)
    return next(path for path in candidates if path.exists())


def keys_of(folder: Path, system: str) -> list:
    """``[key, shape, dtype]`` of every entry of a network's state dict, under the original's names."""
    return json.loads(find_shared(folder, f"keys/{system}.json").read_text())


def runs_of(recording: Recording, kind: str) -> list[str]:
    """Recorded runs of a kind: ``eval``, ``given`` (training on given proposals) or ``whole`` (whole detector)."""
    if kind == "eval":
        return unique(key.split("/")[0] for key in recording.manifest["roi_test"])
    runs = recording.manifest["train"]
    return [run for run in runs if run.startswith("train_given") == (kind == "given")]


def unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
