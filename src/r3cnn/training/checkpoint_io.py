"""Checkpoints that are whole or not there, and several of one name."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import lightning
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor

from r3cnn.archive import read_archive
from r3cnn.disk import whole_file

log = logging.getLogger(__name__)
PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the one that it replaces, then renames it, which is one step for the file system.

    Lightning's own way writes into the system's temporary folder first. Where that is another file system, as on the
    nodes of most clusters, moving it is a copy, and a run that is ended within the copy leaves half a checkpoint.
    It reads and removes local files alone, and removes only what lies beside those that it has written: Lightning's own
    follows any path, or address of a server, that stands in a checkpoint.
    """

    def __init__(self) -> None:
        self._folders: set[Path] = set()

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
            self._folders.add(Path(path).parent.resolve())
        except (OSError, RuntimeError) as error:
            reason = error if isinstance(error, OSError) else error.__context__  # torch has words of its own for it
            if isinstance(reason, OSError):
                raise OSError(reason.errno, reason.strerror, str(path)) from error
            raise

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: object = None, weights_only: bool | None = None
    ) -> dict[str, object]:
        """Reads a checkpoint onto the CPU.

        Args:
            path: Local file.
            map_location: Not needed; Lightning passes it.
            weights_only: Likewise: nothing else is ever read.

        Raises:
            FileNotFoundError: When there is no such file.
            ValueError: When it is refused, see `read_archive`.
        """
        content = read_archive(Path(path))
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds a {type(content).__name__}: a checkpoint is a mapping")
        return content

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Removes a checkpoint that the run keeps no longer; anything else is left alone.

        Args:
            path: Local file.
        """
        path = Path(path)
        is_ours = path.parent.resolve() in self._folders and path.suffix == callbacks.ModelCheckpoint.FILE_EXTENSION
        if is_ours and path.is_file() and not path.is_symlink():
            path.unlink()
        elif path.exists():
            log.warning("%s is not removed: it is no checkpoint file of this run", path)


class ModelCheckpoint(callbacks.ModelCheckpoint):
    """Lightning's, but of the files that it keeps it notes names in its folder, so that a run may be moved or copied.

    A run that is resumed in its own folder takes over the names whose files are there, with their scores, and works out
    which is the best. A run that goes on in another folder starts without any.
    """

    _is_own = True

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, object]
    ) -> None:
        """Finds out whether the checkpoint is one of this run's folder."""
        folder = Path(str(trainer.default_root_dir)).resolve()
        self._is_own = folder in Path(str(trainer.ckpt_path)).resolve().parents

    def state_dict(self) -> dict[str, object]:
        """Scores, and names of files in the folder of the callback."""
        state = super().state_dict()
        del state["dirpath"]
        names = {key: Path(state[key]).name for key in PATHS}
        return {**state, **names, "best_k_models": {Path(path).name: each for path, each in self.best_k_models.items()}}

    def load_state_dict(self, state_dict: Mapping[str, object]) -> None:
        """Takes over the files that are still there.

        Args:
            state_dict: As `state_dict` gives it, or Lightning's with whole paths, of which the names count alone.

        Raises:
            ValueError: When it is neither.
        """
        scores = state_dict.get("best_k_models")
        if not isinstance(scores, Mapping):
            raise ValueError(
                f"best_k_models of {self.state_key} is {scores!r}: scores by the name of a file are needed"
            )
        folder = state_dict.get("dirpath")
        kept = {self._place(folder, path): self._score(score) for path, score in scores.items()}
        places = {key: self._place(folder, state_dict.get(key)) for key in PATHS}
        score = state_dict.get("current_score")
        if not self._is_own:
            return
        self.current_score = None if score is None else self._score(score)
        self.last_model_path, self.best_model_path = places["last_model_path"], places["best_model_path"]
        self.best_k_models = {place: score for place, score in kept.items() if place}
        if self.best_k_models:
            best, worst = (max, min) if self.mode == "max" else (min, max)
            self.best_model_path = best(self.best_k_models, key=lambda place: float(self.best_k_models[place]))
            self.best_model_score = self.best_k_models[self.best_model_path]
            if len(self.best_k_models) >= self.save_top_k:
                self.kth_best_model_path = worst(self.best_k_models, key=lambda place: float(self.best_k_models[place]))
                self.kth_value = self.best_k_models[self.kth_best_model_path]

    def _place(self, folder: object, path: object) -> str:
        """Where a file of the checkpoint's folder is now, if it is there."""
        if not isinstance(path, str):
            raise ValueError(f"a file of {self.state_key} is {path!r}: the name of a file is needed")
        place = Path(str(self.dirpath)) / name_in(folder, path)
        return str(place) if place.suffix == self.FILE_EXTENSION and place.is_file() else ""

    def _score(self, value: object) -> Tensor:
        if not isinstance(value, Tensor | float) or (isinstance(value, Tensor) and value.numel() != 1):
            raise ValueError(f"a score of {self.state_key} is {value!r}: a number is needed")
        return torch.as_tensor(value)


def names_of_checkpoints(content: object) -> list[str]:
    """Names of the files that the callbacks in a checkpoint keep, wherever they were."""
    states = content.get("callbacks") if isinstance(content, dict) else None
    told: list[str] = []
    for state in states.values() if isinstance(states, dict) else ():
        if isinstance(state, dict):  # else of a callback of the user's own
            scores = state.get("best_k_models")
            paths = [*(scores if isinstance(scores, dict) else ()), *(state.get(key) for key in PATHS)]
            told += [name_in(state.get("dirpath"), path) for path in paths]
    return [name for name in told if name.endswith(callbacks.ModelCheckpoint.FILE_EXTENSION)]


def name_in(folder: object, path: object) -> str:
    """Name of a file that is noted as a name, or as a path in a folder; empty for one elsewhere, or none."""
    is_there = isinstance(path, str) and str(Path(path).parent) in (".", folder)
    return Path(str(path)).name if is_there else ""


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
