"""``python -m r3cnn.cli.torchrun``: torchrun that ends when the sweep that started it is killed, with its ranks."""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from r3cnn.cli.ranks import end_with_parent
from r3cnn.end_signals import KILLED

if __name__ == "__main__":
    end_with_parent()
    try:
        main()
    except ChildFailedError as error:  # its own report would hide what the rank said about the reason
        rank, failure = error.get_first_failure()
        sys.exit(f"rank {rank} ended first, with status {failure.exitcode}")
    except SignalException as error:  # the ranks were told and have ended
        sys.exit(KILLED + int(error.sigval))
