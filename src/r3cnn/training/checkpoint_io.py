"""Files of a run that are whole or not there, and several checkpoints of one name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a draft beside ``path``, ``.NAME.PID``, to write into; it takes the place of ``path`` in one step.

    Where writing fails, what ``path`` held before is still whole. Folders that are missing are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the one that it replaces, then renames it, which is one step for the file system.

    Lightning's own way writes into the system's temporary folder first. Where that is another file system, as on the
    nodes of most clusters, moving it is a copy, and a run that is ended within the copy leaves half a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, object], path: str | os.PathLike[str], storage_options: object = None
    ) -> None:
        """Writes a checkpoint.

        Args:
            checkpoint: Its content.
            path: Where it goes, on a local or mounted file system.
            storage_options: None; Lightning passes it.

        Raises:
            OSError: If it cannot be written, say because the disk is full; the file before is still whole.
            TypeError: For storage options, which are of remote file systems.
        """
        if storage_options is not None:
            raise TypeError("storage_options is not None: checkpoints are written to local file systems only")
        try:
            with whole_file(Path(path)) as draft, draft.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            reason = error if isinstance(error, OSError) else error.__context__  # torch has words of its own for it
            if isinstance(reason, OSError):
                raise OSError(reason.errno, reason.strerror, str(path)) from error
            raise


class SeveralCheckpoints(ModelCheckpoint):
    """Keeps several checkpoints of one fixed name: each has its step and score in its name, the best one that name too.

    Lightning's own would write one after the other into the same file, so that the newest one stayed.
    """

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Turns the name into a pattern."""
        super().setup(trainer, pl_module, stage)
        if "{" not in str(self.filename):
            self._plain_name = f"{self.filename}{self.FILE_EXTENSION}"
            score = "" if self.monitor is None else f"-{{{self.monitor}:.4f}}"
            self.filename, self.auto_insert_metric_name = f"{self.filename}-{{step}}{score}", False

    def _save_checkpoint(self, trainer: lightning.Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if trainer.is_global_zero:
            self.name_best(Path(self.best_model_path))

    def name_best(self, path: Path) -> None:
        """Gives the best checkpoint the fixed name as well."""
        link_or_copy(path, path.with_name(self._plain_name))


def link_or_copy(source: Path, target: Path) -> None:
    """Puts a file under another name as well, as a hard link where the file system can; replaces what is there."""
    if target.exists() and target.samefile(source):
        return
    with whole_file(target) as draft:
        try:
            draft.hardlink_to(source)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, draft)
