"""What the runs of one table have in common, and whether that is the paper's setting."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from r3cnn.reporting.neutral import NEUTRAL, is_below, without
from r3cnn.reporting.records import DataFacts, Record

PAPER_SCALE, PAPER_FILE, PAPER_IMAGES = "coco", "instances_val2017.json", 5000
# Of the 118,287 images of train2017 these have objects; the released code trains on no others.
PAPER_TRAIN_FILE, PAPER_TRAIN_IMAGES = "instances_train2017.json", 117_266
PAPER_LR, PAPER_IMAGES_PER_STEP = 0.02, 16
# What a setting knows otherwise: data by their content, devices by the number of ranks.
KNOWN_OTHERWISE = (
    "data.root",
    "data.prepare.folder",
    "data.train.images",
    "data.train.annotations",
    "data.val.images",
    "data.val.annotations",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.default_root_dir",
    "callbacks.best",
    "callbacks.rois",
    "evaluation.save_loops",
)
# Overrides that name the row, or say where and how a run is made, tell no two settings apart.
NO_SETTING = (*NEUTRAL, *KNOWN_OTHERWISE, "experiment", "scale", "sweep", "seed", "data.seed")


@dataclass(frozen=True)
class Setting:
    """What the runs of one table have in common; results of different settings never stand in one table.

    Attributes:
        scale: Size of the experiments.
        overrides: Values set by hand that change results.
        train: What was learnt from; its file by name.
        val: What everything was scored on; its file by name.
        ranks: Processes that trained together.
        images_per_step: Images of one optimizer step on all ranks together.
        lr_per_image: Learning rate divided by them, which stays the same when it is scaled to their number.
    """

    scale: str
    overrides: tuple[str, ...]
    train: DataFacts
    val: DataFacts
    ranks: int
    images_per_step: int
    lr_per_image: float

    @property
    def is_the_papers(self) -> bool:
        """Whether results may be compared with the published ones."""
        return not self.unlike_the_papers

    @property
    def unlike_the_papers(self) -> tuple[str, ...]:
        """What forbids a comparison with the published results; nothing for COCO as a whole, unchanged by hand.

        The number of images per step is not among it while the learning rate is scaled to it (linear scaling, arXiv
        1706.02677): most have fewer than eight GPUs. Tables say where it differs.
        """
        scored, learnt = (self.val.file, self.val.images), (self.train.file, self.train.images)
        is_rate_the_papers = math.isclose(self.lr_per_image, PAPER_LR / PAPER_IMAGES_PER_STEP)
        reasons = {
            "scale": self.scale != PAPER_SCALE,
            "values set by hand": bool(self.overrides),
            "training images": learnt != (PAPER_TRAIN_FILE, PAPER_TRAIN_IMAGES),
            "images scored": scored != (PAPER_FILE, PAPER_IMAGES),
            "learning rate": not is_rate_the_papers,
        }
        return tuple(reason for reason, holds in reasons.items() if holds)

    @property
    def digest(self) -> str:
        """Tells the tables of two settings apart in the names of their elements."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:8]

    def describe(self) -> str:
        """For a heading."""
        changed = f", {' '.join(self.overrides)}" if self.overrides else ""
        ranks = f" on {self.ranks} ranks" if self.ranks > 1 else ""
        learnt = f"{self.train.images} images of {self.train.file}{ranks}, {self.images_per_step} per step"
        scored = f"{self.val.images} images of {self.val.file}"
        return f"scale {self.scale}{changed}, trained with {learnt}, scored on {scored}"


def setting_of(record: Record) -> Setting:
    """The setting that a run belongs to.

    Raises:
        ValueError: If its configuration is none of a training run.
    """
    config = record.config
    kept = {_in_one_spelling(each, config) for each in record.overrides if not is_below(key_of(each), NO_SETTING)}
    accumulated = _number(config, "trainer.accumulate_grad_batches")
    return Setting(
        scale=record.scale,
        overrides=tuple(sorted(kept)),
        train=_by_name(record.data.train),
        val=_by_name(record.data.val),
        ranks=record.ranks,
        images_per_step=round(_number(config, "data.batch_size") * record.ranks * accumulated),
        lr_per_image=_number(config, "optimizer.lr") / _number(config, "optimizer.base_images"),
    )


def configuration_of(record: Record) -> str:
    """Names all of a run's configuration that its results depend on, less its seed and what a setting knows."""
    kept = without(record.config, NO_SETTING)
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def key_of(override: str) -> str:
    """The dotted key that an override sets."""
    return override.split("=")[0].lstrip("+~").split("@")[0]


def value_at(config: Mapping[str, object], key: str) -> object:
    """Value of a dotted key; None where there is none."""
    value: object = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _in_one_spelling(override: str, config: Mapping[str, object]) -> str:
    """With the number that it came to, so that 0.01 and 1e-2 are the same."""
    value = value_at(config, key_of(override))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{key_of(override)}={value}" if is_number else override


def _number(config: Mapping[str, object], key: str) -> float:
    value = value_at(config, key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"the configuration has {key}={value!r}: it is none of a training run")
    return value


def _by_name(facts: DataFacts) -> DataFacts:
    return replace(facts, file=Path(facts.file).name)
