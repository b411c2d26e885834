"""Builds objects from plain nested configurations; the one mechanism for the command line and for checkpoints."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence

RESERVED_KEYS = ("_target_", "_partial_")
# What a network or data set of a checkpoint may be built from without the user's consent. Whole packages of ours are
# safe to name since a target must be defined there: `r3cnn.data.coco.os.system` is not.
TRUSTED_PACKAGES = (
    "r3cnn.detector",
    "r3cnn.schedule",
    "r3cnn.backbones",
    "r3cnn.layers",
    "r3cnn.ops",
    "r3cnn.rpn",
    "r3cnn.roi",
    "r3cnn.data",
    "torch.nn",
)


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
        trusted: Packages that targets may come from; None allows every package (the user's own configuration).

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
        trusted: Packages that both the path and the place of definition must lie in; None for no limit.

    Raises:
        ValueError: When nothing callable is there or it is not trusted. Nothing is imported before that is known.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name or not _lies_in(path, trusted):
        raise ValueError(_distrust(path, trusted))
    try:
        found = getattr(importlib.import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise ValueError(f"_target_ {path!r}: {error}") from error
    except AttributeError as error:
        raise ValueError(f"_target_ {path!r}: module {module_name} has no {name!r}") from error
    if not callable(found):
        raise ValueError(f"_target_ {path!r} is a {type(found).__name__}, a class or function is needed")
    if not _lies_in(str(getattr(found, "__module__", "")), trusted):
        raise ValueError(_distrust(path, trusted))
    return found


def _lies_in(path: str, trusted: Sequence[str] | None) -> bool:
    return trusted is None or any(path == package or path.startswith(package + ".") for package in trusted)


def _distrust(path: str, trusted: Sequence[str] | None) -> str:
    package = path.split(".")[0]
    return (
        f"_target_ {path!r} is not trusted (trusted: {', '.join(trusted or ())}). "
        f"If you trust that package, name it: trusted_packages=[{package}]"
    )
