"""What a finished run leaves for the report: ``result.json``, written before anything is printed, drawn or sent."""

from __future__ import annotations

import logging
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import cast

import lightning
import msgspec
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import Tensor

import r3cnn
from r3cnn.cli.configs import plain
from r3cnn.cli.jobs import job_hash, job_name
from r3cnn.cli.terminal import left_out_on_error
from r3cnn.data.datamodule import CocoDataModule
from r3cnn.data.dataset import CocoDataset
from r3cnn.data.index_cache import digest_of
from r3cnn.evaluation.metrics_format import Metrics
from r3cnn.reporting.records import (
    FORMAT,
    DataFacts,
    Git,
    MemoryKind,
    Parameters,
    Record,
    Speed,
    Splits,
)
from r3cnn.run_files import RESULT, ROIS, TRAINING_ROIS, Config, in_json, read_json, write_json
from r3cnn.training.measurements import Measurements
from r3cnn.training.module import TrainingModule

log = logging.getLogger(__name__)
MIB = 2**20
LIBRARIES = ("torch", "torchvision", "lightning")
NO_DATA = DataFacts("", "", 0, 0)
ROI_FILES = {"train": TRAINING_ROIS, "val": ROIS}


@rank_zero_only
def write_record(
    config: DictConfig, trainer: lightning.Trainer, module: TrainingModule, data: CocoDataModule, output_dir: Path
) -> None:
    """Writes ``result.json``, whole or not at all; once it is there the run counts as finished.

    Args:
        config: Settled configuration of the run.
        trainer: The trainer after training and evaluation.
        module: What it trained and scored.
        data: What with.
        output_dir: Folder of the run.

    Raises:
        ValueError: When there is no result to write.
    """
    if module.result is None:
        raise ValueError("there is no result to keep")
    record = make_record(config, trainer, module, data, output_dir, module.result.metrics)
    write_json(asdict(record), output_dir / RESULT, indent=2)


def make_record(
    config: DictConfig,
    trainer: lightning.Trainer,
    module: TrainingModule,
    data: CocoDataModule,
    output_dir: Path,
    metrics: Metrics,
) -> Record:
    """Gathers what is known about a finished run; the arguments are those of `write_record`."""
    measured = next((each for each in trainer.callbacks if isinstance(each, Measurements)), None)  # type: ignore[attr-defined]
    parameters = [*module.model.parameters()]
    device = trainer.strategy.root_device  # the module itself is back on the CPU by now
    is_cuda = device.type == "cuda"
    kind: MemoryKind = "cuda" if is_cuda else "resident"
    return Record(
        format=FORMAT,
        name=job_name(),
        scale=str(config.scale_name),
        sweep=config.sweep_name,
        hash=job_hash(config),
        overrides=tuple(HydraConfig.get().overrides.task),
        config=cast(Config, in_json(plain(config))),
        git=git_state(Path(r3cnn.__file__).parent),
        versions=versions(),
        device=torch.cuda.get_device_name(device) if is_cuda else device.type,
        ranks=trainer.world_size,
        seed=config.seed,
        data=Splits(facts_of(data.train_set), NO_DATA if data.val is None else facts_of(data.val_set)),
        parameters=Parameters(
            sum(each.numel() for each in parameters), sum(each.numel() for each in parameters if each.requires_grad)
        ),
        train_memory_bytes=(measured.training.memory or None) if measured else None,
        memory_kind=kind,
        images_per_second=_speed(measured),
        checkpoint_mib=checkpoint_bytes(module.model, trainer.optimizers[0]) / MIB,
        metrics=metrics,
        roi_balance=roi_balance(output_dir),
        seconds=_seconds(measured),
    )


def _speed(measured: Measurements | None) -> Speed:
    if measured is None:
        return Speed(None, None)
    return Speed(measured.training.images_per_second, measured.evaluation.images_per_second)


def _seconds(measured: Measurements | None) -> dict[str, float | None]:
    if measured is None:
        return {}
    steps, evaluation = measured.training.seconds, measured.evaluation.seconds
    return {"train": steps or None, "eval": evaluation or None, "total": measured.total_seconds}


def facts_of(images: CocoDataset) -> DataFacts:
    """What these images are, by content as far as that is still there."""
    file, digest = images.annotations.file, ""
    with left_out_on_error(f"the digest of {file}"):
        digest = digest_of(file)
    return DataFacts(str(file), digest, len(images), images.num_objects)


def checkpoint_bytes(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights, buffers and the optimizer's state: what a training checkpoint holds.

    The paper's "model size" is that with SGD's momentum, in MiB.
    """
    state: Mapping[object, Mapping[str, object]] = optimizer.state_dict()["state"]
    kept = [value for values in state.values() for value in values.values() if isinstance(value, Tensor)]
    return sum(value.nbytes for value in (*model.state_dict().values(), *kept))


class _Balance(msgspec.Struct):
    balance: float | None


class _Balances(msgspec.Struct):
    loops: dict[str, _Balance]


def roi_balance(output_dir: Path) -> dict[str, dict[str, float | None]]:
    """Balance of every loop by split, from the files that the run wrote; nothing where they are not wanted."""
    found = {}
    for split, name in ROI_FILES.items():
        path = output_dir / name
        if path.is_file():
            with left_out_on_error(f"the balance of RoIs in {path}"):
                loops = read_json(path, _Balances).loops
                found[split] = {loop: values.balance for loop, values in loops.items()}
    return found


def versions() -> dict[str, str]:
    """Of what decides on a result beside the configuration."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {**libraries, "r3cnn": r3cnn.__version__, "python": platform.python_version()}


def git_state(package: Path) -> Git | None:
    """The commit that the code at ``package`` belongs to; None if it is in no checkout of its own.

    An installed package may well lie below somebody else's checkout, which does not track it.
    """
    if not _git(package, "ls-files", "--error-unmatch", "__init__.py"):
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changed is None:
        return None
    return Git(commit.strip(), bool(changed.strip()))


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None if it fails or is not there."""
    try:
        done = subprocess.run(
            # Somebody else's repository may name a program to be asked for changes.
            ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
