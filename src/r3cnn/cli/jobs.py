"""The jobs of a sweep: what each one runs, which folder is its own, and whether it is done."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from r3cnn.cli.configs import Config, fill_classes, quoted, settle_folders
from r3cnn.reporting.neutral import NEUTRAL, without
from r3cnn.run_files import RESULT, in_json

AUTO = "auto"  # of ``resume``: go on with what is in the folder, if there is anything; of ``trainer.devices``: all
LAST = "last"  # of ``resume``: go on with the newest checkpoint in the folder
UNNAMED = "run"
HASH_DIGITS = 12
# Hydra's settings of the sweep itself, which a single run knows nothing of.
OF_THE_SWEEP = ("hydra.mode=", "hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher", "hydra.run.")
OF_THE_JOB = ("output_dir", "resume")


@dataclass(frozen=True)
class Job:
    """One training run of a sweep.

    Attributes:
        name: Name of its experiment, ``run`` if it has none.
        hash: Of its resolved configuration.
        folder: The one folder that it writes into; absolute.
        arguments: Words after ``r3cnn`` that run it alone, going on with it if it has been interrupted.
        overrides: What it sets, each as on the command line.
        config: Its composed configuration, with Hydra's part.
    """

    name: str
    hash: str
    folder: Path
    arguments: tuple[str, ...]
    overrides: tuple[str, ...]
    config: DictConfig

    @property
    def is_finished(self) -> bool:
        """Whether it left its result, without which no run is finished."""
        return (self.folder / RESULT).is_file()


def job_hash(config: DictConfig) -> str:
    """Names a run by all that its results depend on.

    Args:
        config: Composed configuration of the run, settled or not; it is not changed.

    Returns:
        The first 12 hex digits of the SHA-256 of the resolved configuration, without what changes no result and with
        the same output folder for all.
    """
    settled = copy.deepcopy(config)
    OmegaConf.update(settled, "output_dir", ".")
    settle_folders(settled)
    fill_classes(settled)
    content = OmegaConf.to_container(settled, resolve=True)
    if not isinstance(content, dict):
        raise ValueError(f"a mapping is needed, got {content!r}")
    return hash_of({str(key): value for key, value in content.items()})


def hash_of(config: Config) -> str:
    """Likewise of a configuration that is resolved already, in plain containers."""
    text = json.dumps(in_json(without(config, NEUTRAL)), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def job_name() -> str:
    """What a run is called: its experiment, ``run`` if it has none. Hydra must know the run."""
    return HydraConfig.get().runtime.choices.get("experiment") or UNNAMED


def job_of(config: DictConfig) -> Job:
    """A job of a sweep; jobs that come to the same configuration share their folder.

    Args:
        config: Its configuration as Hydra composed it, with Hydra's part.

    Raises:
        OmegaConfBaseException: For a configuration that lacks a value.
        ValueError: If the classes of its data cannot be read.
        OSError: Likewise.
    """
    with known_to_hydra(config):
        name, digest = job_name(), job_hash(task_config(config))
    folder = Path(str(config.hydra.sweep.dir)).absolute() / f"{name}-{digest}"
    return Job(name, digest, folder, tuple(_arguments(config, folder)), tuple(config.hydra.overrides.task), config)


@contextmanager
def known_to_hydra(config: DictConfig) -> Iterator[None]:
    """Lets ``${hydra:…}`` and questions about the choices refer to this configuration, as in its own run."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def task_config(config: DictConfig) -> DictConfig:
    """A copy of a composed configuration without Hydra's part, as commands get it."""
    task = copy.deepcopy(config)
    OmegaConf.set_readonly(task, False)
    with open_dict(task):
        del task["hydra"]
    return task


def key_of(override: str) -> str:
    """What an override sets, without the signs that add or delete it."""
    return override.split("=")[0].lstrip("+~")


def _arguments(config: DictConfig, folder: Path) -> list[str]:
    hydra = config.hydra
    folders = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    flags = [word for found in folders for word in ("--config-dir", found)]
    task = [each for each in hydra.overrides.task if key_of(each) not in OF_THE_JOB]
    own = [f"output_dir={quoted(str(folder))}", "resume=auto", "hydra.mode=RUN"]
    kept = [each for each in hydra.overrides.hydra if not each.startswith(OF_THE_SWEEP)]
    return [str(hydra.job.config_name), *flags, *task, *own, *kept]
