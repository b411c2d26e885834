"""This implementation with the weights of a recording, and views on what happens inside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from recordings import Recording, experiment_of, keys_of, rule_of, split_name
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from r3cnn.cli.configs import config_folder, plain, register_resolvers
from r3cnn.detector import RCNN
from r3cnn.interop.mmdetection import translate
from r3cnn.ops.boxes import image_limits
from r3cnn.ops.sampling import BalancedSampler
from r3cnn.schedule import LoopSchedule
from r3cnn.structures import Rois, Size
from r3cnn.training.build import instantiate
from r3cnn.training.checkpoint import build_model

EVERYTHING = 100_000  # the original's samplers were set to this, so that nothing was random


def load_config(experiment: str) -> dict:
    register_resolvers()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return plain(compose("train", overrides=[f"experiment={experiment}"]))


def load_model(recording: Recording) -> RCNN:
    """The recording's network with its weights and schedule, in evaluation mode.

    Variants of a network differ in their schedule only, so they share one model.
    """
    system, _ = split_name(recording.name)
    model = _load_system(recording.folder, system, recording.seed)
    model.roi_heads.schedule = schedule_of(recording)
    model.rpn.train_proposals = replace(
        model.rpn.train_proposals, per_image=recording.manifest["train_rpn_proposals_cap"]
    )
    return model.eval()


@lru_cache(maxsize=1)
def _load_system(folder: Path, system: str, seed: int) -> RCNN:
    model = build_model(load_config(system)["model"], trusted=None)
    weights = translate(rule_of(folder, seed).state_dict(keys_of(folder, system), seed)).weights
    model.load_state_dict(dict(weights))
    model.roi_heads.sampler = BalancedSampler(EVERYTHING, model.roi_heads.sampler.positive_fraction)
    model.rpn.sampler = BalancedSampler(EVERYTHING, model.rpn.sampler.positive_fraction)
    return model


def schedule_of(recording: Recording) -> LoopSchedule:
    system, _ = split_name(recording.name)
    config, base = load_config(experiment_of(recording.name))["model"], load_config(system)["model"]
    schedule = instantiate(config["roi_heads"]["schedule"])
    assert config == {**base, "roi_heads": {**base["roi_heads"], "schedule": config["roi_heads"]["schedule"]}}
    assert isinstance(schedule, LoopSchedule)
    return schedule


def load_features(recording: Recording) -> tuple[Tensor, ...]:
    """Pyramid levels of all images in one batch, without gradient."""
    system, _ = split_name(recording.name)
    return _load_features(recording.folder, system, recording)


@lru_cache(maxsize=1)
def _features_of(folder: Path, system: str) -> dict[str, tuple[Tensor, ...]]:
    return {}


def _load_features(folder: Path, system: str, recording: Recording) -> tuple[Tensor, ...]:
    stored = _features_of(folder, system)
    if not stored:
        with torch.no_grad():
            stored["levels"] = tuple(load_model(recording).features(recording.images))
    return stored["levels"]


def parameter_names(recording: Recording) -> dict[str, str]:
    """Our name of every entry of the original's state dict."""
    keys = [key for key, *_ in keys_of(recording.folder, split_name(recording.name)[0])]
    tags = {key: torch.tensor(number) for number, key in enumerate(keys)}
    return {keys[int(tag)]: ours for ours, tag in translate(tags).weights.items()}


def one_image(features: tuple[Tensor, ...], image: int) -> list[Tensor]:
    return [level[image : image + 1] for level in features]


def as_rois(boxes: list[Tensor]) -> Rois:
    """Slots for boxes (n, 4) of each image, the shorter lists padded."""
    padded = torch.nn.utils.rnn.pad_sequence(boxes, batch_first=True)
    counts = torch.tensor([len(b) for b in boxes])
    return Rois(padded, torch.arange(padded.shape[1]) < counts[:, None])


def limits_of(sizes: list[Size]) -> Tensor:
    return image_limits(sizes, torch.device("cpu"))


@contextmanager
def captured(*modules: nn.Module, cut: bool = False) -> Iterator[list]:
    """What the modules return, in the order of their calls; ``cut`` makes it the start of the gradient's graph."""
    outputs: list = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> object:
        outputs.append(tree_map(lambda tensor: tensor.detach().requires_grad_(), output) if cut else output)
        return outputs[-1]

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
