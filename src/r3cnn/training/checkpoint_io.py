"""Checkpoint files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from lightning.pytorch.plugins import TorchCheckpointIO


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
            TypeError: For storage options, which are of remote file systems.
        """
        if storage_options is not None:
            raise TypeError("storage_options is not None: checkpoints are written to local file systems only")
        whole = Path(path)
        whole.parent.mkdir(parents=True, exist_ok=True)
        part = whole.with_name(f".{whole.name}.{os.getpid()}")
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(whole)
        finally:
            part.unlink(missing_ok=True)
