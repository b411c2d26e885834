"""What an earlier run left in a folder: whether this run may go on with it, and how it is replaced."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import lightning
import msgspec
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig

from r3cnn.batch import Batch
from r3cnn.cli.configs import Config, plain
from r3cnn.cli.jobs import hash_of
from r3cnn.cli.outcome import checkpoint_files, run_files
from r3cnn.cli.ranks import rank_in
from r3cnn.reporting.neutral import NEUTRAL, without
from r3cnn.run_files import (
    CHECKPOINTS,
    CONFIG,
    DETECTIONS,
    EVALUATED,
    METRICS,
    RESULT,
    TRAINING_CONFIG,
    read_config,
    read_json,
)

log = logging.getLogger(__name__)
PREVIOUS = "previous_run"  # folder in which an overwritten run waits for the first checkpoint of the new one
PATIENCE_SECONDS = 60.0  # of further ranks, for the first one to bring a run back
SHOWN_KEYS = 3
GO_ON = "resume=last continues it, overwrite=true replaces it, or "
RESULTS = (RESULT, METRICS, DETECTIONS)
OWN: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "train": ({"resume", "overwrite"}, ()),
    "evaluate": ({"checkpoint", "trainer"}, (EVALUATED, METRICS, DETECTIONS)),
    "predict": ({"checkpoint", "source"}, (DETECTIONS,)),
}
"""Keys of ``config.yaml`` by which a command knows its own earlier call, and what of that it may replace."""


def refuse_used(output_dir: Path, command: str, way_out: str = "") -> None:
    """Refuses a folder in which a command would replace a run, or files that are not of its own earlier calls.

    Args:
        output_dir: Folder that the command writes into.
        command: One of `OWN`.
        way_out: What can be done instead of naming another folder.

    Raises:
        ValueError: When it would.
    """
    keys, replaceable = OWN[command]
    config: Config = {}
    with suppress(ValueError, FileNotFoundError):  # another program's
        config = read_config(output_dir / CONFIG)
    is_own = keys <= config.keys()
    results = (*(output_dir / CHECKPOINTS).glob("*.ckpt"), *(output_dir / name for name in RESULTS))
    run = sorted(path for path in results if path.exists() and not (is_own and path.name in replaceable))
    found = list(dict.fromkeys([*run, *([] if is_own else run_files(output_dir))]))
    if found:
        names = ", ".join(str(path.relative_to(output_dir)) for path in found[:SHOWN_KEYS])
        more = f" and {len(found) - SHOWN_KEYS} more" if len(found) > SHOWN_KEYS else ""
        raise ValueError(
            f"output_dir={output_dir} holds {'a run' if run else 'other files'} ({names}{more}), which would be "
            f"replaced: {way_out if run else ''}name another output_dir"
        )


def refuse_unfinished(output_dir: Path) -> None:
    """Refuses to evaluate into the folder of a training that has not come to its end.

    Raises:
        ValueError: When it has not.
    """
    config: Config = {}
    with suppress(ValueError, FileNotFoundError):  # another program's
        config = read_config(output_dir / CONFIG)
    if "resume" in config and not (output_dir / RESULT).is_file():
        raise ValueError(
            f"output_dir={output_dir} holds a training that has not finished, whose {CONFIG} would be replaced: "
            f"resume it, or name another folder, such as {output_dir / 'evaluation'}"
        )


class RunFolder(Callback):
    """Touches the folder of a run only once all ranks are ready to train.

    A run that is overwritten is set aside until the new one has its first whole checkpoint, and brought back if the new
    one ends without any.

    Args:
        output_dir: Folder of the run.
        replaces: Whether what an earlier run left in it is replaced.
        begin: What the first rank does to the folder before the first step.
    """

    def __init__(self, output_dir: Path, *, replaces: bool, begin: Callable[[], None]) -> None:
        self.output_dir = output_dir
        self._replaces, self._begin = replaces, begin
        self._waits = False

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Makes room, after all ranks have read what they start from."""
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            if self._replaces:
                set_aside(self.output_dir)
                self._waits = True
            self._begin()
        trainer.strategy.barrier()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Lets go of the earlier run as soon as there is something to go on from."""
        if self._waits and checkpoint_files(self.output_dir / CHECKPOINTS):
            settle_previous(self.output_dir)
            self._waits = False


def set_aside(output_dir: Path) -> None:
    """Moves everything that an earlier run wrote into a folder of its own; what others put there stays."""
    for path in run_files(output_dir):
        target = output_dir / PREVIOUS / path.relative_to(output_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def settle_previous(output_dir: Path) -> None:
    """Ends the wait of a run that was set aside: it goes if the new one has a checkpoint, else it is brought back."""
    previous = output_dir / PREVIOUS
    if rank_in(os.environ) > 0:
        _wait_until_gone(previous)
        return
    if not previous.is_dir():
        return
    if checkpoint_files(output_dir / CHECKPOINTS):
        log.info("the earlier run in %s is replaced", output_dir)
    else:
        for path in run_files(output_dir):
            path.unlink()
        for path in sorted(path for path in previous.rglob("*") if path.is_file()):
            target = output_dir / path.relative_to(previous)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        log.warning("restored the earlier run in %s: the new run saved no checkpoint", output_dir)
    shutil.rmtree(previous)


def _wait_until_gone(previous: Path) -> None:
    """Lets a further rank see the folder as the first rank leaves it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while previous.is_dir() and time.monotonic() < end:
        time.sleep(0.1)


class _Finished(msgspec.Struct):
    config: Config
    name: str | None = None


def is_finished(config: DictConfig, output_dir: Path) -> bool:
    """Whether this very run has left its result in the folder.

    Raises:
        ValueError: When the result is that of another configuration.
    """
    path = output_dir / RESULT
    try:
        found = read_json(path, _Finished)
    except FileNotFoundError:
        return False
    except ValueError as error:  # of a disk that was full, or a hand
        raise ValueError(f"{path} is no record of a run: remove it, or name another output_dir") from error
    _refuse_another(config, found.config, output_dir, f"finished run {found.name}")
    return True


def check_same_run(config: DictConfig, output_dir: Path) -> None:
    """Refuses to go on with the checkpoint of another configuration.

    Raises:
        ValueError: When the folder holds one.
    """
    path = next((path for name in (TRAINING_CONFIG, CONFIG) if (path := output_dir / name).is_file()), None)
    if path is not None:
        _refuse_another(config, read_config(path), output_dir, "run")


def _refuse_another(config: DictConfig, kept: Config, output_dir: Path, title: str) -> None:
    ours, theirs = _anywhere(plain(config)), _anywhere(kept)
    ours_hash, their_hash = map(hash_of, (ours, theirs))
    if ours_hash == their_hash:
        return
    raise ValueError(
        f"resume=auto: output_dir={output_dir} holds the {title} {their_hash}, and this is {ours_hash}, which differs "
        f"in {_differences(ours, theirs)}: name another folder; resume=last continues from its checkpoint all the same"
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
