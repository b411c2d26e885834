"""Builds objects from plain nested configurations; the one mechanism for the command line and for checkpoints."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

RESERVED_KEYS = ("_target_", "_partial_")
# What the network and the data set of a checkpoint may be built from without the user's consent: the targets of conf/,
# name by name, since not everything in our own modules is harmless in the hands of a stranger.
TRUSTED_TARGETS = (
    "r3cnn.backbones.FPN",
    "r3cnn.backbones.ResNet",
    "r3cnn.backbones.TimmBackbone",
    "r3cnn.data.augmentation.Augmentation",
    "r3cnn.data.augmentation.ColorJitter",
    "r3cnn.data.augmentation.FixedScale",
    "r3cnn.data.augmentation.LargeScaleJitter",
    "r3cnn.data.augmentation.MultiScale",
    "r3cnn.data.datamodule.CocoDataModule",
    "r3cnn.data.shapes.write_shapes",
    "r3cnn.data.split.Split",
    "r3cnn.detector.RCNN",
    "r3cnn.layers.attention.RelativePositionAttention",
    "r3cnn.layers.deformable.deform_block",
    "r3cnn.layers.global_context.add_context",
    "r3cnn.ops.matching.Matcher",
    "r3cnn.ops.sampling.BalancedSampler",
    "r3cnn.roi.box_heads.NonLocalBoxHead",
    "r3cnn.roi.box_heads.SharedFCBoxHead",
    "r3cnn.roi.extractors.GRoIEExtractor",
    "r3cnn.roi.extractors.SingleLevelRoIExtractor",
    "r3cnn.roi.heads.RoIHeads",
    "r3cnn.roi.inference.DetectionSettings",
    "r3cnn.roi.mask_branch.MaskBranch",
    "r3cnn.roi.mask_heads.FCNMaskHead",
    "r3cnn.roi.mask_iou_heads.BoxScores",
    "r3cnn.roi.mask_iou_heads.MaskIoUHead",
    "r3cnn.rpn.AnchorGenerator",
    "r3cnn.rpn.RPN",
    "r3cnn.rpn.rpn.ProposalSettings",
    "r3cnn.schedule.LoopSchedule",
)
WHOLE_PACKAGE = ".*"


def trusted_targets(packages: str | Sequence[str] | None = ()) -> tuple[str, ...]:
    """What a checkpoint's network may be built from.

    Args:
        packages: Packages of the user's own that may be used as a whole; one name stands for itself, None for none.

    Raises:
        ValueError: For anything but names.
    """
    names = [packages] if isinstance(packages, str) else packages or []
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"trusted_packages is {packages!r}: names of packages are needed")
    return (*TRUSTED_TARGETS, *(name + WHOLE_PACKAGE for name in names))


class Factory:
    """A callable made from a ``_partial_`` node: every call builds its nested nodes anew.

    Two calls therefore never share a weight, unlike with Hydra's own ``_partial_``, which builds nested ``_target_``
    nodes once and hands the same object to every call.
    """

    def __init__(self, target: Callable[..., object], settings: Mapping[str, object], trusted: Sequence[str] | None):
        self.target = target
        self.settings = settings
        self.trusted = trusted

    def __call__(self, *args: object, **overrides: object) -> object:
        """Calls the target with its settings; arguments given here win over the settings."""
        settings = {key: value for key, value in self.settings.items() if key not in overrides}
        return self.target(*args, **_build_values(settings, self.trusted), **overrides)

    def __repr__(self) -> str:
        return f"Factory({self.target.__module__}.{self.target.__qualname__})"


def instantiate(config: object, trusted: Sequence[str] | None = None) -> object:
    """Builds a nested configuration of plain dicts, lists and scalars.

    A dict with ``_target_: package.module.Name`` becomes a call of that class or function with the other keys as
    arguments; with ``_partial_: true`` it becomes a `Factory` of such calls.

    Args:
        config: Plain containers; anything else is returned as it is.
        trusted: Targets that may be built, see `find_target`; None allows all of them (the user's own configuration).

    Raises:
        ValueError: For a target that cannot be found, is not trusted, or refuses its arguments.
    """
    if isinstance(config, Mapping):
        if "_target_" not in config:
            return _build_values(config, trusted)
        unknown = [key for key in config if str(key).startswith("_") and key not in RESERVED_KEYS]
        if unknown:
            raise ValueError(f"key {unknown[0]!r} beside _target_: only {RESERVED_KEYS} are known")
        target = find_target(str(config["_target_"]), trusted)
        settings = {str(key): value for key, value in config.items() if key not in RESERVED_KEYS}
        if config.get("_partial_", False):
            return Factory(target, settings, trusted)
        values = _build_values(settings, trusted)
        try:
            return target(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"cannot build {config['_target_']}: {error}") from error
    if isinstance(config, list | tuple):
        return [instantiate(value, trusted) for value in config]
    return config


def _build_values(settings: Mapping[str, object], trusted: Sequence[str] | None) -> dict[str, object]:
    return {key: instantiate(value, trusted) for key, value in settings.items()}


def find_target(path: str, trusted: Sequence[str] | None = None) -> Callable[..., object]:
    """The class or function at ``package.module.Name``.

    Args:
        path: Dotted path.
        trusted: Dotted paths, and packages as ``package.*``, whose targets must also be defined there and whose
            private names are refused; None for no limit.

    Raises:
        ValueError: When nothing callable is there or it is not trusted. Nothing is imported before that is known.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name or not _is_trusted(path, trusted):
        raise ValueError(_distrust(path, trusted))
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise ValueError(f"_target_ {path!r}: {error}") from error
    except AttributeError as error:
        raise ValueError(f"_target_ {path!r}: module {module_name} has no {name!r}") from error
    if not callable(found):
        raise ValueError(f"_target_ {path!r} is a {type(found).__name__}, a class or function is needed")
    if trusted is not None and path not in trusted and not _lies_in(str(getattr(found, "__module__", "")), trusted):
        raise ValueError(_distrust(path, trusted))
    return found


def _is_trusted(path: str, trusted: Sequence[str] | None) -> bool:
    if trusted is None or path in trusted:
        return True
    return _lies_in(path, trusted) and not any(part.startswith("_") for part in path.split("."))


def _lies_in(path: str, trusted: Sequence[str]) -> bool:
    packages = [entry.removesuffix(WHOLE_PACKAGE) for entry in trusted if entry.endswith(WHOLE_PACKAGE)]
    return any(path == package or path.startswith(package + ".") for package in packages)


def _distrust(path: str, trusted: Sequence[str] | None) -> str:
    package = path.split(".")[0]
    packages = [entry.removesuffix(WHOLE_PACKAGE) for entry in trusted or () if entry.endswith(WHOLE_PACKAGE)]
    return (
        f"_target_ {path!r} is not trusted (trusted: the parts of r3cnn's own configurations"
        f"{''.join(f', {name}' for name in packages)}). "
        f"If you trust that package, name it: trusted_packages=[{package}]"
    )
