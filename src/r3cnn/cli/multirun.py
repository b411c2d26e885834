"""One job of a multirun as a run of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, read_write

# Lightning sets them when it starts further ranks, and takes them for an outer launcher's when it finds them.
RANK_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


@contextmanager
def as_single_run(command: str) -> Iterator[None]:
    """Lets Lightning start the further ranks of this job alone, and forget them when it is over.

    Lightning repeats the command line for every rank, which in a multirun would be the whole sweep. It puts the folder
    in double quotes, but does not escape what is in it.

    Args:
        command: Name of the command that runs.
    """
    job = HydraConfig.get()
    folder = QuotedString(str(Path(job.runtime.output_dir).absolute()), Quote.double).with_quotes()
    with read_write(cast(DictConfig, job)):
        job.run.dir = folder[1:-1]
    if job.mode != RunMode.MULTIRUN:
        yield
        return
    overrides = [*job.overrides.task, *(each for each in job.overrides.hydra if not each.startswith("hydra.mode="))]
    whole_call, variables = sys.argv, {name: os.environ.get(name) for name in RANK_VARIABLES}
    sys.argv = [whole_call[0], command, *overrides, f"output_dir={folder}"]
    try:
        yield
    finally:
        sys.argv = whole_call
        _leave_ranks(variables)


def _leave_ranks(variables: dict[str, str | None]) -> None:
    from torch import distributed

    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
