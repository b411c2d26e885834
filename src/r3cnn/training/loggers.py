"""Where numbers go during a run: a CSV file or TensorBoard; Weights & Biases has a file of its own."""

from __future__ import annotations

import csv
import netrc
import os
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from r3cnn.disk import whole_file
from r3cnn.ranges import check_range

WANDB_URL = "https://api.wandb.ai"


class CsvLogger(Logger):
    """One row per logging step in ``metrics.csv``, kept when a run is resumed.

    Lightning's own logger deletes the rows of the run before.

    Args:
        folder: Where ``metrics.csv`` lies.
        flush_every: Rows that are held back before the file is written.
    """

    def __init__(self, folder: str, flush_every: int) -> None:
        super().__init__()
        check_range("[1, inf)", flush_every=flush_every)
        self.path = Path(folder) / "metrics.csv"
        self.flush_every = flush_every
        self._waiting: list[dict[str, float]] = []
        self._num_rows = 0

    @property
    def name(self) -> str:
        """Lightning asks for it; there is one table per folder."""
        return ""

    @property
    def version(self) -> str:
        """Lightning asks for it; there is one table per folder."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Notes one row."""
        row = {key: value.item() if isinstance(value, Tensor) else value for key, value in metrics.items()}
        self._waiting.append({**row, "step": -1 if step is None else step})
        self._num_rows += 1
        if len(self._waiting) >= self.flush_every:
            self.save()

    @rank_zero_only
    def log_hyperparams(self, *args: object) -> None:
        """Nothing: ``config.yaml`` holds them."""

    @rank_zero_only
    def keep_rows_before(self, step: int, count: int | None = None) -> None:
        """Drops the rows from ``step`` on and all beyond the first ``count``: a resumed run writes them again."""
        rows = [row for row in self._read()[:count] if int(row["step"]) < step]
        if self.path.is_file():
            self._write(rows)
        self._num_rows = len(rows)

    def secured_rows(self) -> int:
        """Number of rows, all of which are on the disk from here on, even if the machine loses its power."""
        self.save()
        if self.path.is_file():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        return self._num_rows

    @rank_zero_only
    def save(self) -> None:
        """Writes the rows that wait; appends unless a new column has come up."""
        if not self._waiting:
            return
        rows, self._waiting = self._waiting, []
        known = self._columns()
        if not known or any(key not in known for row in rows for key in row):
            self._write([*self._read(), *rows])
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, known).writerows(rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes what is left."""
        self.save()

    def _columns(self) -> list[str]:
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader(file), [])

    def _read(self) -> list[dict[str, str]]:
        """Rows that are whole; a run that was killed, or found the disk full, may have left a part of one."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            ended, newline, _ = file.read().rpartition("\n")
        rows = csv.DictReader(StringIO(ended + newline))
        return [row for row in rows if None not in row and re.fullmatch(r"-?\d+", row.get("step") or "")]

    def _write(self, rows: Sequence[Mapping[str, object]]) -> None:
        columns = sorted({key for row in rows for key in row} - {"step"})
        with whole_file(self.path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["step", *columns])
            writer.writeheader()
            writer.writerows(rows)


class TensorBoardLogger(LightningTensorBoardLogger):
    """Curves for TensorBoard, in ``tensorboard`` below a folder; a resumed run takes the place of what it repeats.

    Args:
        folder: Folder of the run.

    Raises:
        ValueError: When TensorBoard is not installed.
    """

    def __init__(self, folder: str) -> None:
        try:
            super().__init__(save_dir=str(Path(folder) / "tensorboard"), name="", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise ValueError(
                "logger=tensorboard needs TensorBoard, which is not installed: pip install 'r3cnn[tensorboard]'"
            ) from error

    @rank_zero_only
    def keep_rows_before(self, step: int) -> None:
        """Hides what an earlier run in the folder wrote from ``step`` on; to be called before anything is logged."""
        self._kwargs["purge_step"] = step


def has_wandb_login() -> bool:
    """Whether a key stands in ``WANDB_API_KEY``, or in the user's netrc file for the server at ``WANDB_BASE_URL``."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or WANDB_URL).netloc
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(server) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
