"""Weights that a training run starts from: those of another checkpoint, with a fresh optimizer."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from r3cnn.cli.candidates import advice, network_shapes
from r3cnn.cli.configs import override_of_classes
from r3cnn.cli.jobs import AUTO, LAST
from r3cnn.detector import RCNN
from r3cnn.interop.translation import compare, shapes_of, shortened
from r3cnn.training.checkpoint import CheckpointInfo, check_resumable, load_checkpoint

log = logging.getLogger(__name__)
INIT_CLASSES = ("same", "fresh")
TOLERANCE = 1e-3  # grey levels and deviations that are called equal


def check_options(config: DictConfig) -> None:
    """Refuses contradictions before anything is read or removed.

    Raises:
        ValueError: For a contradiction.
    """
    if config.init_classes not in INIT_CLASSES:
        raise ValueError(f"init_classes must be one of {INIT_CLASSES}, got {config.init_classes!r}")
    if not isinstance(config.overwrite, bool):
        raise ValueError(f"overwrite is {config.overwrite!r}: true or false is needed")
    if config.overwrite and config.resume in (AUTO, LAST):
        raise ValueError(f"overwrite=true begins anew and resume={config.resume} goes on: give one of them")
    if config.init is not None and config.resume not in (None, AUTO):
        raise ValueError("init= starts a new run and resume= goes on with an old one: give one of them")


def start_from(model: RCNN, info: CheckpointInfo, config: DictConfig) -> None:
    """Loads the weights of ``config.init`` into a new network.

    Args:
        model: The network, changed in place.
        info: What it is trained for.
        config: Configuration of the run. With ``init_classes=fresh`` every layer whose shape depends on the number of
            classes keeps its random weights.

    Raises:
        FileNotFoundError: When there is no such checkpoint.
        ValueError: When it is for another network, other classes or another normalisation.
    """
    path = Path(config.init)
    source, weights = load_checkpoint(path)
    keeps_classes = config.init_classes == "same"
    if keeps_classes:
        _check_classes(path, source, info)
    _check_normalisation(path, source, info)
    fresh = set() if keeps_classes else class_layers(config)
    kept = {name: tensor for name, tensor in weights.items() if name not in fresh}
    network = shapes_of(model.state_dict())
    fit = compare(shapes_of(kept), {name: shape for name, shape in network.items() if name not in fresh})
    if fit.distance:
        hint = advice(shapes_of(weights), len(source.classes))
        raise ValueError("\n- ".join([f"the weights in init={path} do not fit this network:", *fit.lines(), hint]))
    model.load_state_dict(kept, strict=False)
    log.info("%d tensors start from %s", len(kept), path)
    if fresh:
        log.info("%d tensors that depend on the classes start anew: %s", len(fresh), ", ".join(sorted(fresh)))


def check_resumed(model: RCNN, path: Path) -> None:
    """Refuses to go on with the run of another network, before anything of the run is touched.

    Raises:
        FileNotFoundError: When there is no such checkpoint.
        ValueError: When it holds weights alone, or those of another network.
    """
    source, weights = check_resumable(path)
    fit = compare(weights, shapes_of(model.state_dict()))
    if fit.distance:
        hint = advice(weights, len(source.classes))
        raise ValueError("\n- ".join([f"the weights in resume={path} do not fit this network:", *fit.lines(), hint]))


def class_layers(config: DictConfig) -> set[str]:
    """Names of all tensors whose shape depends on the number of classes."""
    other = copy.deepcopy(config)
    OmegaConf.update(other, "num_classes", int(config.num_classes) + 1)
    shapes, larger = network_shapes(config), network_shapes(other)
    return {name for name, shape in shapes.items() if larger[name] != shape}


def _check_classes(path: Path, source: CheckpointInfo, info: CheckpointInfo) -> None:
    if source.classes == info.classes:
        return
    if set(source.classes) == set(info.classes):
        raise ValueError(
            f"init={path} has the classes in another order: {override_of_classes(source.classes)} keeps its labels"
        )
    raise ValueError(
        f"init={path} is for {len(source.classes)} classes ({shortened(source.classes)}), the data have "
        f"{len(info.classes)} ({shortened(info.classes)}): init_classes=fresh starts the layers that depend on the "
        "classes anew"
    )


def _check_normalisation(path: Path, source: CheckpointInfo, info: CheckpointInfo) -> None:
    for name in ("mean", "std"):
        theirs, ours = (torch.tensor(getattr(one.preprocessing, name)) for one in (source, info))
        if not torch.allclose(theirs, ours, rtol=0, atol=TOLERANCE):
            raise ValueError(
                f"init={path} learnt from images of {name} {theirs.tolist()}, this run has {ours.tolist()}: "
                f"data.{name}={theirs.tolist()}"
            )
