"""The Weights & Biases run that belongs to a run's folder."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Literal, cast

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from r3cnn.names import shortened
from r3cnn.ranges import check_range
from r3cnn.run_files import read_bytes, write_text
from r3cnn.schedule import LoopSchedule
from r3cnn.training.loggers import has_wandb_login

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

log = logging.getLogger(__name__)
JobType = Literal["train", "evaluate"]
ID_BYTES = 8
LONGEST_NAME, LONGEST_TAG = 128, 64  # that the library takes
FILE_HEADER, BLOCK, PART_HEADER = 7, 32768, 7  # bytes in the library's files
FIRST_PARTS, LAST_PARTS = (1, 2), (1, 4)
STEP, EPOCH = "trainer/global_step", "epoch"  # Lightning's names
# Of the current folder: whether a run is sent at all, whose it is, and what `wandb init` writes beside that.
HARMLESS_SETTINGS = ("mode", "disabled", "project", "entity")
HARMLESS_ADDRESS = ("base_url", "https://api.wandb.ai")
FOLDER = "wandb"  # the library's own name for its files in a run's folder


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run before it begins.

    Attributes:
        job_type: Whether it trains or evaluates.
        name: What the run is called unless the user says otherwise.
        group: What it is put together with unless the user says otherwise: a table, or a system at a scale.
        tags: What one may want to look for.
        config: Resolved configuration, as in ``config.yaml``.
        is_continued: Whether it goes on with an earlier run in its folder, if there is one.
    """

    job_type: JobType = "train"
    name: str = "run"
    group: str = "runs"
    tags: tuple[str, ...] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    is_continued: bool = False


@dataclass(frozen=True)
class WandbMedia:
    """What is sent beside numbers.

    Attributes:
        pictures: Validation images with one overlay per loop.
        panels: Those of them with boxes and masks that can be switched on and off in the browser.
        score_threshold: Detections with a lower score, in [0, 1], are left out of both.
        checkpoints: Whether the best and the last checkpoint become an artifact.

    Raises:
        ValueError: For a negative number, or a score out of range.
    """

    pictures: int
    panels: int
    score_threshold: float
    checkpoints: bool

    def __post_init__(self) -> None:
        check_range("[0, inf)", pictures=self.pictures, panels=self.panels)
        check_range("[0, 1]", score_threshold=self.score_threshold)


class WandbRun(WandbLogger):
    """Lightning's logger with what we know of a run; without a login it stays in ``folder`` for ``wandb sync``.

    A run that is continued keeps its id, which lies in ``wandb/<job type>.id``, and does not log again what the
    library's files in the folder hold of it. ``WANDB_MODE`` and ``WANDB_RUN_ID`` (set by ``wandb agent``) win over what
    is decided here.

    Args:
        facts: What the command knows of the run.
        folder: Folder of the run.
        project: Where the run is filed.
        entity: Whose project that is; None for the user's own.
        name: Name of the run; None for that of the facts.
        group: Its group; None for that of the facts.
        tags: Tags beside those of the facts.
        pictures: See ``WandbMedia``, as the three that follow.
        panels: See there.
        score_threshold: See there.
        checkpoints: See there.

    Attributes:
        media: What is sent beside numbers.

    Raises:
        ValueError: When the library cannot be imported, or a setting is out of range.
    """

    def __init__(
        self,
        facts: RunFacts,
        *,
        folder: str,
        project: str,
        entity: str | None,
        name: str | None,
        group: str | None,
        tags: Sequence[str],
        pictures: int,
        panels: int,
        score_threshold: float,
        checkpoints: bool,
    ) -> None:
        self.media = WandbMedia(pictures, panels, score_threshold, checkpoints)
        self._id_file = Path(folder) / FOLDER / f"{facts.job_type}.id"
        self._is_continued = facts.is_continued
        self._said: frozenset[str] = frozenset()
        try:
            import wandb  # Lightning asks only whether it is installed, at the first step whether it works
        except ImportError as error:
            raise ValueError(
                f"logger=wandb needs wandb, which cannot be imported ({error}): pip install wandb"
            ) from error
        if not project:
            raise ValueError("project is empty: a name is needed")
        wandb.Settings(project=project, entity=entity)  # which refuses names that the server would
        _check_local_settings()
        os.environ.setdefault("WANDB_DISABLE_GIT", "true")  # a repository may name programs for git to run
        is_offline = "WANDB_MODE" not in os.environ and not has_wandb_login()
        super().__init__(
            save_dir=folder,
            project=project,
            entity=entity,
            name=shortened(name or facts.name, LONGEST_NAME),
            group=shortened(group or facts.group, LONGEST_NAME),
            job_type=facts.job_type,
            tags=[*dict.fromkeys(shortened(str(tag), LONGEST_TAG) for tag in (*facts.tags, *tags) if tag)],
            config=dict(facts.config),
            allow_val_change=True,  # a run may be continued with more steps
            id=run_id(self._id_file, is_continued=facts.is_continued),
            mode="offline" if is_offline else None,
        )
        self._wandb_init.pop("anonymous", None)  # Lightning always says it, the library warns about it

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The library's run, which takes no ``config-defaults.yaml`` from the current folder."""
        import wandb

        if self._experiment is None:
            wandb.setup()  # settings of the current folder, such as those of `wandb offline`
            with chdir(Path(wandb.__file__).parent):
                return cast("Run", super().experiment)
        return cast("Run", self._experiment)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers; without them the run goes on."""
        self.log_once({**metrics, STEP: step})

    @rank_zero_only
    def log_once(self, row: Mapping[str, object]) -> None:
        """Logs a row with its step, unless the run did before it was killed or stopped; the first numbers stay.

        Never with ``step=``, since the library drops what is logged for a step that is over.
        """
        if name_of(row) not in self._said:
            with without_stopping_the_run():
                self.experiment.log(dict(row))

    @rank_zero_only
    def keep_id(self) -> None:
        """Notes the id of the run that has begun, for when it is continued, and reads what it has said already."""
        if self.experiment.disabled:
            return
        write_text(f"{self.experiment.id}\n", self._id_file)
        if self._is_continued:
            files = self._id_file.parent.glob(f"*run-*-{self.experiment.id}/run-{self.experiment.id}.wandb")
            self._said = frozenset(name for file in files for name in names_in(file))


def name_of(row: Mapping[str, object]) -> str:
    """What tells a row from all others of a run: its step, and one of the things that it is about."""
    return f"{row.get(STEP)} {min((key for key in row if key not in (STEP, EPOCH) and key[0] != '_'), default='')}"


def names_in(file: Path) -> Iterator[str]:
    """Names of the rows in a file of the library's, up to where a killed run has left it.

    It is a log in LevelDB's format, whose blocks of 32 KiB hold parts of records.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    content, place, record = file.read_bytes(), FILE_HEADER, b""
    while place + PART_HEADER <= len(content):
        if BLOCK - place % BLOCK < PART_HEADER:
            place += BLOCK - place % BLOCK
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        part = content[place + PART_HEADER : place + PART_HEADER + size]
        if zlib.crc32(bytes([kind]) + part) != int.from_bytes(content[place : place + 4], "little"):
            return
        record = part if kind in FIRST_PARTS else record + part
        if kind in LAST_PARTS:
            items = Record.FromString(record).history.item
            row = {"/".join(item.nested_key) or item.key: item.value_json for item in items}
            if STEP in row:
                yield name_of(row)
        place += PART_HEADER + size


def _check_local_settings() -> None:
    """Refuses to be sent elsewhere by a file that happens to lie in the current folder.

    Raises:
        ValueError: When one says more than whether runs are sent at all, or is no file.
    """
    for path in (Path("wandb/settings"), Path(".wandb/settings")):
        found = ConfigParser(interpolation=None, strict=False)
        with suppress(OSError, ConfigParserError):  # the library warns about it
            found.read_string(read_bytes(path).decode(errors="replace"))
        for key, value in found.items("default") if found.has_section("default") else ():
            variable = f"WANDB_{key.upper()}"
            is_harmless = key in HARMLESS_SETTINGS or (key, value) == HARMLESS_ADDRESS
            if not is_harmless and variable not in os.environ:
                raise ValueError(
                    f"{path} sets {key} to {value}, and a file of the current folder does not decide where runs go: "
                    f"if it is yours, say {variable}={value}"
                )


@contextmanager
def without_stopping_the_run() -> Iterator[None]:
    """Turns an error of the library, the network or the disk into a warning: a run is well without its dashboard."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError) as error:
        _warn_once(str(error))


@lru_cache(maxsize=64)
def _warn_once(error: str) -> None:
    """Says what is missing, not at every step of the days that may follow."""
    log.warning("Weights & Biases was not told everything: %s", error)


def run_id(kept: Path, *, is_continued: bool) -> str | None:
    """Id of the run that is to begin: the kept one where it is continued, else a new one.

    Args:
        kept: File with the id of the run before.
        is_continued: Whether the run goes on with that.

    Returns:
        None where the environment names one already.
    """
    if os.environ.get("WANDB_RUN_ID"):
        return None
    if is_continued and kept.is_file():
        return kept.read_text(encoding="utf-8").strip()
    return token_hex(ID_BYTES)


def schedule_tags(schedule: LoopSchedule) -> tuple[str, ...]:
    """The recursion in words: number of loops and heads, order of the IoU thresholds, mask feedback."""
    loops, heads = len(schedule.heads), len(set(schedule.heads))
    tags: tuple[str, ...] = (
        f"loops-{loops}",
        f"heads-{heads}",
        f"thresholds-{threshold_order(schedule.iou_thresholds)}",
    )
    if len(schedule.eval_heads) != loops:
        tags += (f"eval-loops-{len(schedule.eval_heads)}",)
    return (*tags, f"feedback-{schedule.mask_feedback}")


def threshold_order(thresholds: Sequence[float]) -> str:
    """``rising``, ``falling``, ``constant`` or ``mixed``."""
    ascending, descending = sorted(thresholds), sorted(thresholds, reverse=True)
    if ascending == descending:
        return "constant"
    return {tuple(ascending): "rising", tuple(descending): "falling"}.get(tuple(thresholds), "mixed")
