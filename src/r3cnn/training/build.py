"""Builds objects from plain nested configurations; the one mechanism for the command line and for checkpoints."""

from __future__ import annotations

import collections.abc as abc
import difflib
import importlib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

LONGEST_SHOWN = 60  # characters of an argument
RESERVED_KEYS = ("_target_", "_partial_")
# What the network and the data set of a checkpoint may be built from without the user's consent: the targets of conf/,
# name by name, since not everything in our own modules is harmless in the hands of a stranger. Nothing that writes,
# fetches or starts a process when it is built is among them.
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
Part = TypeVar("Part")
SCALARS = (bool, int, float, str, NoneType)
LISTS, MAPPINGS = (list, abc.Sequence, abc.Collection, abc.Iterable), (dict, abc.Mapping)
MODULE_NAMES = re.compile(r"\b(?:\w+\.)+(?=\w)")  # left out of the types in messages


class SettingError(ValueError):
    """A setting that cannot be used; the message begins with its key."""


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

    def __init__(
        self, target: Callable[..., object], settings: Mapping[str, object], trusted: Sequence[str] | None, key: str
    ) -> None:
        self.target = target
        self.settings = settings
        self.trusted = trusted
        self.key = key

    def __call__(self, *args: object, **overrides: object) -> object:
        """Calls the target with its settings; arguments given here win over the settings."""
        settings = {key: value for key, value in self.settings.items() if key not in overrides}
        return _call(self.target, args, {**_build_values(settings, self.trusted, self.key), **overrides}, self.key)

    def __repr__(self) -> str:
        return f"Factory({self.target.__module__}.{self.target.__qualname__})"


def build(config: Mapping[str, object], kind: type[Part], key: str, trusted: Sequence[str] | None = None) -> Part:
    """What `instantiate` makes of a node, which has to be a ``kind``.

    Raises:
        ValueError: If it is not, and as `instantiate` does.
    """
    part = instantiate(config, trusted, key)
    if not isinstance(part, kind):
        raise SettingError(f"{key}._target_ builds a {type(part).__name__}, a {kind.__name__} is needed")
    return part


def instantiate(config: object, trusted: Sequence[str] | None = None, key: str = "") -> object:
    """Builds a nested configuration of plain dicts, lists and scalars.

    A dict with ``_target_: package.module.Name`` becomes a call of that class or function with the other keys as
    arguments; with ``_partial_: true`` it becomes a `Factory` of such calls.

    Args:
        config: Plain containers; anything else is returned as it is.
        trusted: Targets that may be built, see `find_target`; None allows all of them (the user's own configuration).
        key: Where ``config`` stands in the user's configuration, such as ``model``, for messages.

    Raises:
        ValueError: For a target that cannot be found, is not trusted, or refuses its arguments, and for arguments that
            are not of the types that it declares; the message begins with the key, ``model.backbone.strides[0]``.
        OSError: For a file that a target cannot use.
    """
    if isinstance(config, Mapping):
        if "_target_" not in config:
            return _build_values(config, trusted, key)
        unknown = [name for name in config if str(name).startswith("_") and name not in RESERVED_KEYS]
        if unknown:
            raise SettingError(f"{_below(key, unknown[0])} beside _target_: only {RESERVED_KEYS} are known")
        target = find_target(str(config["_target_"]), trusted)
        settings = {str(name): value for name, value in config.items() if name not in RESERVED_KEYS}
        is_partial = bool(config.get("_partial_", False))
        _check_names(target, settings, key, is_complete=not is_partial)
        for name, value in settings.items():
            _check_value(value, _hints(target).get(name, Any), _below(key, name))
        if is_partial:
            return Factory(target, settings, trusted, key)
        return _call(target, (), _build_values(settings, trusted, key), key)
    if isinstance(config, list | tuple):
        return [instantiate(value, trusted, f"{key}[{index}]") for index, value in enumerate(config)]
    return config


def _build_values(settings: Mapping[str, object], trusted: Sequence[str] | None, key: str) -> dict[str, object]:
    return {name: instantiate(value, trusted, _below(key, name)) for name, value in settings.items()}


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _call(target: Callable[..., object], args: Sequence[object], values: Mapping[str, object], key: str) -> object:
    """Calls a target; whatever it refuses its arguments with becomes a `SettingError`."""
    for name, value in values.items():
        _check_built(value, _hints(target).get(name, Any), _below(key, name))
    try:
        return target(*args, **values)
    except (SettingError, OSError):
        raise
    except Exception as error:  # libraries refuse arguments with errors of any kind
        reason = str(error) if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {error}"
        words = re.split(r"\W+", reason)
        joint = "." if key and words[0] in values else ": "
        plain = {name: repr(value) for name, value in values.items() if _is_plain(value)}
        given = ", ".join(f"{name}={text}" for name, text in plain.items() if len(text) <= LONGEST_SHOWN)
        more = f" (given {given})" if given and not values.keys() & {*words} else ""  # torch speaks of "beta parameter"
        raise SettingError(f"{key or getattr(target, '__qualname__', target)}{joint}{reason}{more}") from error


@cache
def _hints(target: Callable[..., object]) -> dict[str, object]:
    """Types of the arguments of a target; none where they name what only a type checker imports."""
    try:
        hints = get_type_hints(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
        defaults = {name: one.default for name, one in inspect.signature(target).parameters.items()}
    except (NameError, TypeError, AttributeError, ValueError):
        return {}
    return {name: hint | None if defaults.get(name, 0) is None else hint for name, hint in hints.items()}


def _check_names(target: Callable[..., object], settings: Mapping[str, object], key: str, *, is_complete: bool) -> None:
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # of a function in C
        return
    kinds = {parameter.kind for parameter in parameters.values()}
    for name in settings:
        if name not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
            close = difflib.get_close_matches(name, parameters, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(parameters) or 'none'}"
            raise SettingError(f"{_below(key, name)}: {target.__qualname__} has no such argument; {hint}")
    for name, one in parameters.items() if is_complete else ():
        if name not in settings and one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise SettingError(f"{_below(key, name)} is missing: {target.__qualname__} needs it")


def _check_value(value: object, hint: object, key: str) -> None:
    """Refuses a plain value that is not of the declared type; what holds nodes is checked once they are built."""
    if not _is_plain(value):
        return
    _check_numbers(value, key)
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise SettingError(f"{key} is {value!r}: one of {get_args(hint)} is needed")
    try:
        msgspec.convert(value, _plain_type(hint))
    except msgspec.ValidationError as error:
        for index in re.findall(r"\[(\d+)\]", str(error)):
            value, key = value[int(index)], f"{key}[{index}]"  # type: ignore[index]
        wanted = hint.__name__ if isinstance(hint, type) else MODULE_NAMES.sub("", str(hint))
        raise SettingError(f"{key} is {value!r}: {wanted} is needed") from None


def _check_numbers(value: object, key: str) -> None:
    """Refuses numbers that no setting can mean, and that torch and numpy fail over late."""
    if isinstance(value, float) and math.isnan(value):
        raise SettingError(f"{key} is NaN: a number is needed")
    if isinstance(value, int) and abs(value) > sys.maxsize:
        raise SettingError(f"{key} is {value}: a number of at most 64 bits is needed")
    if isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            _check_numbers(entry, f"{key}[{index}]")


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return "_target_" not in value and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, SCALARS)


def _check_built(value: object, hint: object, key: str) -> None:
    """Refuses what a node was built into where a class is declared that it is none of."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    classes = tuple(kind for kind in kinds if _is_class(kind) and not getattr(kind, "_is_protocol", False))
    if not _is_plain(value) and len(classes) == len(kinds) and not isinstance(value, classes):
        needed = " or ".join(kind.__name__ for kind in classes)
        raise SettingError(f"{key} builds a {type(value).__name__}: a {needed} is needed")


class _Never:
    """Stands for a type that no plain value has, as of callables and of classes."""


@cache
def _plain_type(hint: Any) -> Any:
    """A type as msgspec takes it for plain values; ``Any`` where nothing is known about them."""
    origin, kinds = get_origin(hint), get_args(hint)
    if hint in SCALARS or origin is Literal:
        return hint
    plain: Any
    if origin in (Union, UnionType):
        plain = Union[tuple(kind for kind in map(_plain_type, kinds) if kind is not _Never) or (_Never,)]  # noqa: UP007
    elif origin in (tuple, *LISTS, *MAPPINGS) and not kinds:  # typing.List and the like
        plain = dict if origin in MAPPINGS else list
    elif origin is tuple:
        plain = tuple[tuple(kind if kind is ... else _plain_type(kind) for kind in kinds)]  # type: ignore[misc]
    elif origin in LISTS:
        plain = list[_plain_type(kinds[0])]  # type: ignore[misc]
    elif origin in MAPPINGS:
        plain = dict[_plain_type(kinds[0]), _plain_type(kinds[1])]  # type: ignore[misc]
    elif _is_class(hint):
        plain = _plain_type_of_class(hint)
    else:
        return _Never if origin is abc.Callable else Any
    try:
        msgspec.convert(None, NoneType | plain)
    except TypeError:  # a union that it does not tell apart
        return Any
    return plain


def _plain_type_of_class(kind: type) -> Any:
    """What constructors commonly take in place of an object of a class: a path's text, an enum's value, a number."""
    if issubclass(kind, os.PathLike):
        return str
    if issubclass(kind, Enum):
        return kind
    try:
        return Any if any(issubclass(scalar, kind) for scalar in SCALARS) else _Never  # such as numbers.Real
    except TypeError:  # a protocol that cannot be asked at run time
        return _Never


def _is_class(hint: object) -> TypeGuard[type]:
    """Whether only objects of a class fit, which no plain values are."""
    return isinstance(hint, type) and hint not in (Any, object, tuple, *LISTS, *MAPPINGS)


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
        found = getattr(_imported(module_name), name)
    except ModuleNotFoundError as error:
        raise ValueError(f"_target_ {path!r}: {error}") from error
    except AttributeError as error:
        raise ValueError(f"_target_ {path!r}: module {module_name} has no {name!r}") from error
    if not callable(found):
        raise ValueError(f"_target_ {path!r} is a {type(found).__name__}, a class or function is needed")
    if trusted is not None and path not in trusted and not _lies_in(str(getattr(found, "__module__", "")), trusted):
        raise ValueError(_distrust(path, trusted))
    return found


def find_in_current_folder() -> None:
    """Lets packages in the current folder be imported, for a user who has named one; installed ones come first."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
        importlib.invalidate_caches()


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
    find_in_current_folder()
    return importlib.import_module(name)


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
