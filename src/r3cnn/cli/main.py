"""Finds the command, lets Hydra compose its configuration, and runs it."""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from r3cnn.cli.configs import config_folder, in_words_of_hydra, register_resolvers, search_for_the_highest
from r3cnn.cli.errors import SHOW_TRACEBACKS, USER_ERROR, message_for_user, prefer_lines_to_tracebacks, report
from r3cnn.cli.multirun import as_single_run
from r3cnn.cli.path_words import quoted_paths
from r3cnn.cli.ranks import OF_A_SWEEP, end_with_parent, overrides_of_rank
from r3cnn.cli.settings import check_added, check_settings
from r3cnn.cli.terminal import patient_output
from r3cnn.end_signals import SIGNALS, status_of
from r3cnn.training.build import find_in_current_folder

log = logging.getLogger(__name__)
MULTIRUN, VERBOSE = ("-m", "--multirun"), ("-v", "--verbose")
SWEEP_FOLDER = "output_dir=outputs/sweeps/${scale_name}"  # as in conf/sweep
ASKS_FOR_A_SWEEP = ("launcher=slurm", "hydra.mode=MULTIRUN")  # as -m does
BENCHMARKS = ("train", "infer", "loops", "parts", "scale", "masks", "coco_eval", "index", "data", "memory")
HARMLESS_WARNINGS = (
    ".*isinstance.treespec, LeafSpec.*",  # between Lightning and torch
    ".*your dataloader is not resumable.*",  # it is: the checkpoint's position is handed to it
    ".*Checkpoint directory .* is not empty.*",  # a run that is resumed; another one is refused
    ".*could not find the monitored key.*",  # a checkpoint between two validations
    ".*srun. command is available.*",  # SLURM is there, this run is none of its jobs
    ".*`srun` command is available.*",  # whoever wants it says launcher=slurm
    ".*functional.all_gather is deprecated.*",  # Lightning's business
    ".*could be decompression bomb.*",  # what max_megapixels refuses has an error of its own
    ".*sync_dist=True.*",  # the metric has come together from all ranks already
)
CHATTY_LOGGERS = ("faster_coco_eval", "onnxscript", "onnx_ir")  # time stamps, every node of a graph
# What Lightning logs at level INFO that is no news: advertisements, and what the configuration says.
NO_NEWS = re.compile(
    r"(GPU|TPU|HPU) available|💡 Tip|was configured so|`weights_only` was not set|LOCAL_RANK: |Mixed Precision"
    r"|Initializing distributed|All distributed processes|distributed_backend=|^-+\n|static graph optimizations"
    r"|Restor(ing|ed all) states|Loaded model weights|Loading `train_dataloader` to estimate|global step \d+: "
    r"|`Trainer.fit` stopped: `max_(steps|epochs)=|auto-requeueing"
)


@dataclass(frozen=True)
class Command:
    """One command; its configuration is ``conf/<name>.yaml`` and its code ``run`` in ``r3cnn.cli.<name>``.

    Attributes:
        name: Name of the command.
        summary: One line for the help.
        parts: Words that may follow the name, short for ``part=<word>``.
        has_ranks: Whether several processes may run it together.
    """

    name: str
    summary: str
    parts: tuple[str, ...] = ()
    has_ranks: bool = False


COMMANDS = {
    command.name: command
    for command in (
        Command("train", "train a network, evaluate it and draw what it found", has_ranks=True),
        Command(
            "evaluate",
            "AP of a checkpoint after every loop; eval_loops=5 asks for more loops than trained",
            has_ranks=True,
        ),
        Command("predict", "find objects in an image or a folder of images"),
        Command("convert", "checkpoints of mmdetection and torchvision become ours; and back with to=mmdet"),
        Command("export", "a checkpoint becomes one file for onnxruntime or torch.export, all sizes fixed"),
        Command("params", "parameters of a network per submodule; needs no data and no weights"),
        Command("bench", f"time and memory beside others: bench {', '.join(BENCHMARKS)}", BENCHMARKS),
        Command("data", "look at a data set, or make one: data check, browse, convert", ("check", "browse", "convert")),
        Command("analyze", "look inside the loop: analyze rois, errors, speed", ("rois", "errors", "speed")),
        Command("report", "one table of finished runs: report runs=[outputs/demo,runs/naive]"),
    )
}


def usage() -> str:
    """Text of ``r3cnn --help``."""
    rows = "\n".join(f"  {command.name:<10} {command.summary}" for command in COMMANDS.values())
    return (
        "usage: r3cnn <command> [key=value ...]\n\n"
        f"commands:\n{rows}\n\n"
        "`r3cnn <command> --help` lists the configuration groups and values, `--cfg job` prints the configuration,\n"
        "`-m` runs all combinations, `-v` shows the traceback of an error.\n"
        "examples:\n"
        "  r3cnn train experiment=demo output_dir=outputs/demo\n"
        "  r3cnn train -m experiment=demo seed=0,1,2\n"
        "  r3cnn evaluate checkpoint=outputs/demo/checkpoints/best.ckpt eval_loops=5"
    )


def main() -> None:
    """Entry point of the console script."""
    prefer_lines_to_tracebacks()
    logging.raiseExceptions = False  # where the log cannot be written, as on a full disk, its line is lost alone
    with patient_output():
        try:
            start(sys.argv[1:])
        except Exception as error:
            sys.exit(_status_asked_for(error) or report(error))


def _status_asked_for(error: BaseException) -> int | None:
    """The status of a process that was told to end while a library raised another error over it, as torch.save does."""
    inner: BaseException | None = error
    while inner is not None and SIGNALS.told is not None:
        if isinstance(inner, SystemExit):
            return status_of(SIGNALS.told)
        inner = inner.__context__
    return None


def start(arguments: Sequence[str]) -> None:
    """Runs the command that the words after ``r3cnn`` name; what goes wrong is raised.

    Nothing in the current folder is run by this process or those that it starts, unless a setting names it.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # of further processes, whoever starts them
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError("the current folder has been deleted: change to one that is there") from None
    if os.path.lexists("matplotlibrc"):
        with chdir(config_folder()):
            import matplotlib  # noqa: F401  # once, and without that file, which it evaluates
    if OF_A_SWEEP in os.environ:
        end_with_parent()
    words = [word for word in arguments if word not in VERBOSE]
    if len(words) < len(arguments):
        os.environ[SHOW_TRACEBACKS] = "1"
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        sys.exit(0 if words else USER_ERROR)
    name = next((word for word in words if word not in MULTIRUN), words[0])
    if name not in COMMANDS:
        raise ValueError(_unknown("command", name, tuple(COMMANDS)))
    words.remove(name)
    with SIGNALS.handled(may_continue=name == "train"):
        run_command(COMMANDS[name], _with_part(COMMANDS[name], words))


def _with_part(command: Command, words: list[str]) -> list[str]:
    """The words, the first of which may name a part, as the override that it is short for."""
    part = next((word for word in words if word not in MULTIRUN), "-")
    if not command.parts or "=" in part or part.startswith("-"):
        return words
    if part not in command.parts:
        raise ValueError(_unknown(f"{command.name} part", part, command.parts))
    return [f"part={word}" if word == part else word for word in words]


def run_command(command: Command, words: list[str]) -> None:
    """Runs one command under Hydra, once or, with ``-m``, once per combination."""
    register_resolvers()
    search_for_the_highest()  # which lets Hydra look for plug-ins
    if any("pkg://" in word for word in words):
        find_in_current_folder()
    words = in_words_of_hydra(words)
    whole_call = sys.argv
    failures: list[Exception] = []

    def task(config: DictConfig) -> None:
        sys.argv = whole_call  # Lightning starts further ranks with it
        try:
            run_quietly(command, config)
        except Exception as error:  # Hydra would report it in its own way
            failures.append(error)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                log.error("failed: %s: %s", " ".join(HydraConfig.get().overrides.task), message_for_user(error))

    is_sweep = any(word in MULTIRUN or word.startswith(("sweep=", *ASKS_FOR_A_SWEEP)) for word in words)
    overrides = quoted_paths([word for word in words if word not in MULTIRUN], is_sweep=is_sweep)
    flags = ["--multirun"] if len(overrides) < len(words) else []  # Hydra takes it at either end alone
    further = [*_overrides_of_sweep(command, words), *_overrides_of_rank(command, overrides)]
    sys.argv = [whole_call[0], *flags, *overrides, *further]
    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command.name)(task)()
    finally:
        sys.argv = whole_call
    for failure in failures:
        raise failure


def run_quietly(command: Command, config: DictConfig) -> None:
    """Runs one job of a command without the remarks of libraries that are none of the user's business."""
    module = importlib.import_module(f"r3cnn.cli.{command.name}")
    for chatty in CHATTY_LOGGERS:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()  # they would print everything a second time
        logging.getLogger(name).propagate = True
    for handler in logging.getLogger().handlers:
        handler.addFilter(is_news)
    with warnings.catch_warnings(), as_single_run(command.name):
        for message in HARMLESS_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        check_settings(config, command.name)
        check_added(config, command.name)
        module.run(config)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the log is worth a user's time; warnings always are."""
    is_remark = record.levelno < logging.WARNING and record.name.startswith("lightning")
    return not (is_remark and NO_NEWS.search(record.getMessage()))


def _overrides_of_sweep(command: Command, overrides: list[str]) -> list[str]:
    """The folder of a free sweep is that of the tables, so that it is found again when the sweep is started again."""
    asks = [each for each in overrides if each in MULTIRUN or each.startswith(ASKS_FOR_A_SWEEP)]
    is_sweep = command.name == "train" and bool(asks)
    has_folder = any(each.startswith(("output_dir=", "sweep=", "hydra.sweep.dir=")) for each in overrides)
    return [SWEEP_FOLDER] if is_sweep and not has_folder else []


def _overrides_of_rank(command: Command, overrides: list[str]) -> list[str]:
    return overrides_of_rank(os.environ, overrides) if command.has_ranks else []


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"there is no {kind} {name!r}; did you mean {close[0]!r}? `r3cnn --help` lists them."
    return f"there is no {kind} {name!r}; there are {', '.join(known)}."
