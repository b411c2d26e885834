"""What an earlier run left in a folder that ``resume=auto`` would go on with, and whether it was the same run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig

from r3cnn.cli.configs import Config, plain, read_config
from r3cnn.cli.jobs import RESULT, hash_of
from r3cnn.reporting.neutral import NEUTRAL, without

CONFIG_FILE = "config.yaml"
SHOWN_KEYS = 3


def is_finished(config: DictConfig, output_dir: Path) -> bool:
    """Whether this very run has left its result in the folder.

    Raises:
        ValueError: When the result is that of another configuration.
    """
    path = output_dir / RESULT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise ValueError(f"{path} is no record of a run: remove it, or name another output_dir")
    _refuse_another(config, found["config"], output_dir, f"finished run {found.get('name')}")
    return True


def check_same_run(config: DictConfig, output_dir: Path) -> None:
    """Refuses to go on with the checkpoint of another configuration.

    Raises:
        ValueError: When the folder holds one.
    """
    path = output_dir / CONFIG_FILE
    if path.is_file():
        _refuse_another(config, read_config(path), output_dir, "run")


def _refuse_another(config: DictConfig, kept: Config, output_dir: Path, title: str) -> None:
    ours, theirs = _anywhere(plain(config)), _anywhere(kept)
    ours_hash, their_hash = map(hash_of, (ours, theirs))
    if ours_hash == their_hash:
        return
    raise ValueError(
        f"resume=auto: output_dir={output_dir} holds the {title} {their_hash}, and this is {ours_hash}, which differs "
        f"in {_differences(ours, theirs)}: name another folder; resume=last goes on with its checkpoint all the same"
    )


def _anywhere(config: Config) -> Config:
    """A resolved configuration whose paths below its output folder no longer say where that is."""
    folder = str(config.get("output_dir"))

    def moved(value: object) -> object:
        if isinstance(value, Mapping):
            return {key: moved(each) for key, each in value.items()}
        if isinstance(value, list):
            return [moved(each) for each in value]
        is_below = isinstance(value, str) and (value == folder or value.startswith(f"{folder}/"))
        return f".{str(value)[len(folder) :]}" if is_below else value

    return {key: moved(value) for key, value in config.items()}


def _differences(ours: Config, theirs: Config) -> str:
    mine, other = (_flat(without(config, NEUTRAL)) for config in (ours, theirs))
    keys = sorted(key for key in {*mine, *other} if mine.get(key) != other.get(key))
    shown = [f"{key} ({other.get(key, 'nothing')} there, {mine.get(key, 'nothing')} here)" for key in keys[:SHOWN_KEYS]]
    more = [f"{len(keys) - SHOWN_KEYS} more keys"] if len(keys) > SHOWN_KEYS else []
    return ", ".join([*shown, *more])


def _flat(config: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found
