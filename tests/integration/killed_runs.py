"""Runs that are killed at a chosen moment, each in a fork of a process that has imported everything."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from r3cnn.cli import evaluate, train
from r3cnn.cli.main import main
from r3cnn.training import finish
from r3cnn.training.checkpoint_io import WholeFileCheckpointIO
from r3cnn.training.loggers import CsvLogger
from r3cnn.training.module import EvaluationModule, TrainingModule

KILLED = -signal.SIGKILL
NOT_REPEATABLE = ("speed/", "memory/")  # columns of metrics.csv that no two runs share

OF_THE_FIRST_RANK = ("saving", "writing", "best", "outcome", "record")  # what the others do not do


@dataclass(frozen=True)
class Moment:
    """When a run ends: at the ``count``-th call of something, counted from 1, before or after what it does.

    Attributes:
        place: Key of `PLACES`.
        count: Which call.
        is_before: Whether what is called is not done any more.
        pause: Seconds that it waits before.
    """

    place: str
    count: int
    is_before: bool = True
    pause: float = 0.0


PLACES: Mapping[str, tuple[object, str]] = {
    "step": (TrainingModule, "training_step"),
    "validation": (EvaluationModule, "validation_step"),
    "saving": (WholeFileCheckpointIO, "save_checkpoint"),
    "writing": (os, "fsync"),  # a checkpoint is written, but not in its place
    "logging": (CsvLogger, "log_metrics"),
    "best": (finish, "keep_if_best"),
    "outcome": (train, "write_outcome"),
    "record": (train, "write_record"),
    "evaluated": (evaluate, "write_outcome"),
}


def run(arguments: Sequence[str], log: Path, moment: Moment | None = None, *, ranks: int = 1) -> int:
    """One command in forks, one of which, and with it the others, ends by SIGKILL at ``moment``.

    Returns:
        Its exit status, of a signal its number below 0.
    """
    places = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    children = []
    for rank in range(ranks):
        place = {**places, "RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        is_killed = moment is not None and rank == (0 if moment.place in OF_THE_FIRST_RANK else ranks - 1)
        own = moment if is_killed else None
        children.append(forked(partial(command, arguments, log, place, own)))
    if moment is not None and moment.place in OF_THE_FIRST_RANK:
        children.reverse()
    status = os.waitstatus_to_exitcode(os.waitpid(children.pop(), 0)[1])
    for child in children:
        if status != 0:
            os.kill(child, signal.SIGKILL)
        other = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        status = status or other
    return status


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def command(arguments: Sequence[str], log: Path, place: Mapping[str, str], moment: Moment | None) -> None:
    """What a fork does."""
    file = log.open("a", buffering=1)
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    torch.set_num_threads(1)
    os.environ.update(place)
    if moment is not None:
        kill_at(moment)
    sys.argv = ["r3cnn", *arguments]
    main()


def forked(work: Callable[[], None]) -> int:
    """Does something in a process of its own; gives its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def kill_at(moment: Moment) -> None:
    """Ends this process, without a word, at ``moment``."""
    owner, name = PLACES[moment.place]
    original, calls = getattr(owner, name), 0

    def counted(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == moment.count and moment.is_before:
            time.sleep(moment.pause)
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if calls == moment.count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


def content(checkpoint: Path) -> dict[str, object]:
    """Entries of a checkpoint."""
    return torch.load(checkpoint, map_location="cpu", weights_only=True)


def table(folder: Path) -> list[dict[str, str]]:
    """Rows of ``metrics.csv`` without what depends on the machine's speed."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [{key: value for key, value in row.items() if not key.startswith(NOT_REPEATABLE)} for row in rows]


def differences(found: Path, expected: Path) -> list[str]:
    """What a run that was killed and resumed left otherwise than the undisturbed one."""
    names = sorted(path.relative_to(expected) for path in (expected / "checkpoints").glob("*.ckpt"))
    others = sorted(path.relative_to(found) for path in (found / "checkpoints").iterdir())
    wrong = [] if names == others else [f"checkpoints are {others}, not {names}"]
    for name in names if not wrong else ():
        ours, theirs = content(found / name), content(expected / name)
        for key in ("state_dict", "current_model_state"):
            weights, targets = ours.get(key, {}), theirs.get(key, {})
            wrong += [f"{name} {key} {each}" for each in targets if not torch.equal(weights[each], targets[each])]
        wrong += [f"{name} {key}" for key in ("loops", "global_step", "epoch") if ours[key] != theirs[key]]
        wrong += [f"{name} {each}" for each in unequal_states(ours["callbacks"], theirs["callbacks"])]
    for name in ("metrics.json", "detections.json", "roi_statistics.json", "roi_statistics_train.json"):
        if json.loads((found / name).read_text()) != json.loads((expected / name).read_text()):
            wrong.append(name)
    if table(found) != table(expected):
        wrong.append(f"rows {steps(found)}, not {steps(expected)}")
    return wrong


def steps(folder: Path) -> list[str]:
    """What the rows of ``metrics.csv`` are about."""
    return [
        f"{row['step']}{'v' if 'val/mask_ap' in row else ''}{'t' if 'train/loss' in row else ''}"
        for row in table(folder)
    ]


def unequal_states(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    """Callbacks that remember other scores, but for paths."""
    wrong = [] if ours.keys() == theirs.keys() else ["callbacks"]
    for callback in theirs:
        if callback.startswith(("ModelCheckpoint", "SeveralCheckpoints", "EarlyStopping")):
            for key, value in theirs[callback].items():
                if key == "current_score":  # which Lightning does not restore
                    continue
                mine = ours[callback][key]
                if key == "best_k_models":
                    value, mine = ({Path(k).name: float(v) for k, v in each.items()} for each in (value, mine))
                elif isinstance(value, str):
                    value, mine = Path(value).name, Path(mine).name
                if mine != value and not (mine != mine and value != value):
                    wrong.append(f"{callback[:30]}.{key}: {mine}, not {value}")
    return wrong
