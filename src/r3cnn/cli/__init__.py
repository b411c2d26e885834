"""The command line: ``r3cnn <command> [overrides]``."""

from r3cnn.cli.main import main

__all__ = ["main"]
