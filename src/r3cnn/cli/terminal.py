"""What is only shown: text in any encoding, to a reader that may go away; no result depends on it."""

from __future__ import annotations

import codecs
import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from r3cnn.names import visible_lines

STDERR = 2
NOBODY_READS = (errno.EPIPE, errno.EIO)  # `| head` has seen enough, or the terminal was closed
log = logging.getLogger(__name__)
ERRORS = "r3cnn_plain"
PLAIN = {"–": "-", "…": "...", "≥": ">=", "≤": "<=", "±": "+-", "√": "sqrt ", "×": "x"}  # signs of our own


class LogFormatter(logging.Formatter):
    """Shows control characters, which the names of files may hold, instead of sending them to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        return visible_lines(super().format(record))


class LogFile(logging.FileHandler):
    """A log file without which the program goes on, as when its folder has been removed."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line; Python's own handler would raise what keeps the file from being opened."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)


class PatientStream:
    """A stream whose writer does not notice when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or does nothing."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flushes, or does nothing."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if error.errno not in NOBODY_READS:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # also for what the stream still holds
        os.close(nowhere)


@contextmanager
def left_out_on_error(part: str) -> Iterator[None]:
    """Turns an error in what is only shown into a warning: the results are written by then."""
    try:
        yield
    except Exception as error:
        log.warning("left out %s: %s: %s", part, type(error).__name__, error)
        log.debug("this is why", exc_info=error)


@contextmanager
def patient_output() -> Iterator[None]:
    """Lets all text be printed in whatever encoding, and commands finish their work with nobody reading."""
    stream = _open_streams()
    codecs.register_error(ERRORS, _plain)
    before = getattr(stream, "errors", None)
    if before is not None and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=ERRORS)
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = PatientStream(stream), PatientStream(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = streams
        if before is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=before)


def _open_streams() -> TextIO:
    """Opens the null device for standard streams that the shell has closed (`>&-`), and returns the output.

    The next files would take their numbers, and whatever writes to a stream by its number would write into these.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(number, True)
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    return sys.stdout


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(PLAIN.get(each) or each.encode("ascii", "backslashreplace").decode() for each in missing), error.end
