"""Weights that a training run starts from: those of another checkpoint, with a fresh optimizer."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

import lightning
import msgspec
import torch
from msgspec import Meta
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from r3cnn.cli.candidates import advice, network_shapes
from r3cnn.cli.configs import override_of_classes
from r3cnn.cli.jobs import AUTO, LAST
from r3cnn.detector import RCNN
from r3cnn.interop.translation import compare, shapes_of, shortened
from r3cnn.training.checkpoint import CheckpointInfo, check_resumable, load_checkpoint, weights_in
from r3cnn.training.checkpoint_io import ModelCheckpoint
from r3cnn.training.module import TrainingModule
from r3cnn.training.optim import OptimizerSettings
from r3cnn.training.position import RUN, position_in, reopen_epoch, step_in
from r3cnn.training.roi_log import RoiLog

log = logging.getLogger(__name__)
COUNTERS = ("ready", "started", "processed", "completed")  # of a part of Lightning's loops, in their order
MOST = 2**53  # of counters and of seconds
Count: TypeAlias = Annotated[int, Meta(ge=1, le=MOST)]
Whole: TypeAlias = Annotated[int, Meta(ge=0, le=MOST)]
KNOWN_PACKAGES = ("r3cnn.", "lightning.")
TOLERANCE = 1e-3  # grey levels and deviations that are called equal


def check_options(config: DictConfig) -> None:
    """Refuses contradictions before anything is read or removed.

    Raises:
        ValueError: For a contradiction.
    """
    if config.overwrite and config.resume in (AUTO, LAST):
        raise ValueError(f"overwrite=true starts over, resume={config.resume} continues: give only one")
    if config.init is not None and config.resume not in (None, AUTO):
        raise ValueError("init= starts a new run, resume= continues an old one: give only one")


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


def check_resumed(module: TrainingModule, order: Mapping[str, object], trainer: lightning.Trainer, path: Path) -> None:
    """Refuses to go on with a run that this one differs from in what cannot change, before anything is touched.

    These are the network, the classes by name and order, the normalisation, the optimizer (its settings are taken from
    this run), the seed and the training images. Batch size and ranks may change, and the length of the run as far as it
    is not over.

    Args:
        module: The module of this run.
        order: What the order of its images is a function of.
        trainer: The trainer of this run, for the length of it.
        path: The checkpoint.

    Raises:
        FileNotFoundError: When there is no such checkpoint.
        ValueError: When it holds weights alone, or is that of such a run.
    """
    source, content = check_resumable(path)
    if content.get(RUN) is None:
        raise ValueError(f"resume={path} was written by an older r3cnn: init={path} starts a new run from its weights")
    try:
        check_state(content, trainer)
        _check_resumed(module, order, trainer, path, source, content)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"resume={path} is damaged: {type(error).__name__}: {error}") from error


class _Dealing(msgspec.Struct):
    """What a checkpoint keeps of how images are dealt out, see `dealing_of`."""

    order: dict[str, int | str]
    batch_size: Count
    ranks: Count
    accumulated: Count
    epoch_batches: Count
    epoch: Whole
    first_batch: Whole
    earlier: list[tuple[int, int, int]]
    optimizer: str


class _Group(msgspec.Struct):
    params: list[Whole]


class _OptimizerState(msgspec.Struct):
    state: dict[Whole, dict[str, Any]]
    param_groups: Annotated[list[_Group], Meta(min_length=1)]


class _State(msgspec.Struct):
    """What Lightning restores of a run."""

    epoch: Whole
    global_step: Whole
    loops: dict[str, dict[str, Any]]
    callbacks: dict[str, dict[str, Any]]
    optimizer_states: Annotated[list[_OptimizerState], Meta(min_length=1, max_length=1)]
    lr_schedulers: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=1)]
    version: Annotated[str, Meta(pattern=r"^[2-9]\.")] = msgspec.field(name="pytorch-lightning_version")
    dealing: _Dealing = msgspec.field(name=RUN)


def check_state(content: Mapping[str, object], trainer: lightning.Trainer) -> None:
    """Holds what Lightning is going to restore against what it writes itself.

    Raises:
        ValueError: For what is missing or of another type; what is wrong would end the run once its folder is touched.
    """
    state = msgspec.convert(content, _State)
    if state.version == lightning.__version__:  # it migrates what others wrote
        _check_alike(state.loops.get("fit_loop"), trainer.fit_loop.state_dict(), "loops.fit_loop")
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            kept = state.callbacks.get(callback.state_key)
            if kept and type(callback).__module__.startswith(KNOWN_PACKAGES):
                if not isinstance(callback, ModelCheckpoint | RoiLog):  # which look at theirs themselves
                    _check_alike(kept, callback.state_dict(), f"callbacks.{callback.state_key}")
                copy.copy(callback).load_state_dict(kept)
    plugin = trainer.precision_plugin
    for name in (type(plugin).__qualname__, "native_amp_scaling_state"):
        if (scaling := plugin.state_dict()) and name in content:
            _check_alike(content[name], scaling, name)
    schedule = LambdaLR(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), lambda step: 1.0)
    (kept,) = state.lr_schedulers
    _check_alike(kept, {"last_epoch": 0, "_step_count": 1, "base_lrs": [], "lr_lambdas": []}, "lr_schedulers[0]")
    if any(each is not None for each in kept["lr_lambdas"]):
        raise ValueError(f"lr_schedulers[0].lr_lambdas is {kept['lr_lambdas']!r}: nothing of them is kept")
    if strange := [key for key in kept if hasattr(schedule, str(key)) and key not in schedule.state_dict()]:
        raise ValueError(f"lr_schedulers[0].{strange[0]} is no part of a schedule's state")


def _check_alike(found: object, usual: object, key: str) -> None:
    if usual is None and isinstance(found, str):  # why a run was stopped early
        return
    kinds = (int, float) if type(usual) in (int, float) and key.startswith("callbacks") else (type(usual),)
    if type(found) not in kinds or (isinstance(found, int | float) and not 0 <= found < MOST):
        raise ValueError(f"{key} is {found!r}: a {type(usual).__name__} is needed, from 0 to {MOST} if it is a number")
    if isinstance(found, Tensor) and not (found.numel() == 1 and found.is_floating_point()):
        raise ValueError(f"{key} is a tensor of {found.dtype} and {[*found.shape]}: one number is needed")
    if isinstance(usual, dict) and isinstance(found, dict):
        if usual and key.startswith(("loops", "callbacks")) and (strange := [*(found.keys() - usual.keys())]):
            raise ValueError(f"{key}.{strange[0]} is nothing that Lightning writes")  # it would take its place
        for name, value in usual.items():
            _check_alike(found.get(name), value, f"{key}.{name}")
        counts = [found[name] for name in COUNTERS if name in usual]
        if counts != sorted(counts, reverse=True):
            raise ValueError(f"{key} is {found}: what is completed was begun before")


def _check_resumed(
    module: TrainingModule,
    order: Mapping[str, object],
    trainer: lightning.Trainer,
    path: Path,
    source: CheckpointInfo,
    content: dict[str, dict[str, object]],
) -> None:
    model, weights = module.model, shapes_of(weights_in(content))
    _check_classes(path, source, module.info, "resume")
    _check_normalisation(path, source, module.info, "resume")
    theirs, ours = (each.preprocessing.image_range for each in (source, module.info))
    if theirs != ours:
        raise ValueError(f"resume={path} was trained on grey values in data.image_range={theirs}, this run has {ours}")
    run = content[RUN]
    _check_order(path, cast("Mapping[str, object]", run["order"]), order)
    reopen_epoch(content)
    epochs, batch = position_in(content)
    if epochs < 0 or batch > cast("int", run["epoch_batches"]):
        raise ValueError(f"it ends in epoch {epochs} after batch {batch}, an epoch has {run['epoch_batches']}")
    for unit, done in (("epochs", epochs), ("steps", step_in(path))):
        limit = getattr(trainer, f"max_{unit}")
        if limit is not None and 0 <= limit < done:
            raise ValueError(f"resume={path}: {done} {unit} are done, trainer.max_{unit} is {limit}")
    fit = compare(weights, shapes_of(model.state_dict()))
    if fit.distance:
        hint = advice(weights, len(source.classes))
        raise ValueError("\n- ".join([f"the weights in resume={path} do not fit this network:", *fit.lines(), hint]))
    if strange := [*(content["state_dict"].keys() - module.state_dict().keys())]:
        raise ValueError(f"resume={path} is damaged: state_dict.{strange[0]} is no weight of this network")
    check_optimizer(path, content, module.settings.optimizer, model.parameters(), run["optimizer"])


def _check_order(path: Path, theirs: Mapping[str, object], ours: Mapping[str, object]) -> None:
    for key, what in {"seed": "seed", "images": "number of training images", "digest": "digest of image ids"}.items():
        if theirs[key] != ours[key]:
            way_out = f"seed={theirs[key]} goes on with it, " if key == "seed" else ""
            raise ValueError(
                f"resume={path}: its {what} is {theirs[key]}, that of this run {ours[key]}, which would change the "
                f"order of the images within the run: {way_out}init=… starts a new run from its weights"
            )


def check_optimizer(
    path: Path,
    content: Mapping[str, object],
    settings: OptimizerSettings,
    parameters: Iterable[nn.Parameter],
    theirs: object,
) -> None:
    """Refuses another optimizer, and a state that this one cannot go on with: it tries that of each tensor by itself.

    Args:
        path: The checkpoint.
        content: Its entries.
        settings: Of this run's optimizer.
        parameters: Of this run's network.
        theirs: Name of the checkpoint's optimizer.

    Raises:
        ValueError: When this run's optimizer cannot take over its state.
    """
    ours = type(settings.factory([nn.Parameter(torch.zeros(1))], lr=settings.lr)).__name__
    if theirs != ours:
        raise ValueError(f"resume={path} was trained by {theirs}, this run has {ours}: the same optimizer is needed")
    saved = cast("list[dict[str, Any]]", content["optimizer_states"])[0]
    for name, value in (pair for group in saved["param_groups"] for pair in group.items()):
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ValueError(f"resume={path} is damaged: {theirs}'s {name} is a tensor of {[*value.shape]}")
    trained = [number for group in saved["param_groups"] for number in group["params"]]
    trainable = [each for each in parameters if each.requires_grad]
    if len(trained) != len(trainable):
        raise ValueError(
            f"resume={path} trained {len(trained)} tensors, this run trains {len(trainable)}: as many are needed"
        )
    for number, parameter in zip(trained, trainable, strict=True):
        state = saved["state"].get(number)
        if not state:  # of a tensor that no loss reached yet
            continue
        probe = nn.Parameter(torch.zeros_like(parameter))
        probe.grad = torch.zeros_like(parameter)
        optimizer = settings.factory([probe], lr=settings.lr)
        optimizer.state[probe] = copy.deepcopy(state)
        try:
            optimizer.step()
        except KeyError as error:
            raise ValueError(
                f"resume={path}: its {theirs} kept no {error}, which this run's settings of optimizer.factory need"
            ) from error
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"resume={path} is damaged: {theirs}'s state of tensor {number}: {error}") from error
        if not probe.isfinite().all():
            raise ValueError(f"resume={path} is damaged: {theirs}'s state of tensor {number} is not finite")


def class_layers(config: DictConfig) -> set[str]:
    """Names of all tensors whose shape depends on the number of classes."""
    other = copy.deepcopy(config)
    OmegaConf.update(other, "num_classes", int(config.num_classes) + 1)
    shapes, larger = network_shapes(config), network_shapes(other)
    return {name for name, shape in shapes.items() if larger[name] != shape}


def _check_classes(path: Path, source: CheckpointInfo, info: CheckpointInfo, option: str = "init") -> None:
    pair = next((pair for pair in zip_longest(source.classes, info.classes) if pair[0] != pair[1]), None)
    if pair is None:
        return
    differs = f"{option}={path} has other labels, first {pair[0]!r} where this run has {pair[1]!r}"
    if set(source.classes) == set(info.classes):
        raise ValueError(
            f"{differs}, the classes in another order: {override_of_classes(source.classes)} keeps its labels"
        )
    hint = "init_classes=fresh" if option == "init" else "init=… with init_classes=fresh"
    raise ValueError(
        f"{differs}; it is for {len(source.classes)} classes ({shortened(source.classes)}), the data have "
        f"{len(info.classes)} ({shortened(info.classes)}): {hint} starts the layers that depend on the classes anew"
    )


def _check_normalisation(path: Path, source: CheckpointInfo, info: CheckpointInfo, option: str = "init") -> None:
    for name in ("mean", "std"):
        theirs, ours = (torch.tensor(getattr(one.preprocessing, name)) for one in (source, info))
        if not torch.allclose(theirs, ours, rtol=0, atol=TOLERANCE):
            raise ValueError(
                f"{option}={path} was trained on images of {name} {theirs.tolist()}, this run has {ours.tolist()}: "
                f"data.{name}={theirs.tolist()}"
            )
