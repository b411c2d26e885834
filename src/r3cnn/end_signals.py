"""What a process does when it is asked to end: at once, or between two steps, where nothing is lost."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TO_BE_CONTINUED = signal.SIGUSR1  # what SLURM is asked to send, see conf/launcher/slurm.yaml
LEFT_EARLY = 75  # exit status EX_TEMPFAIL: not done, to be tried again
KILLED = 128  # added to a signal's number, as shells do
ONE_AND_THE_SAME = 0.5  # seconds; `timeout` sends its signal to the process and to its group, Ctrl-C goes to all ranks


class EndSignals:
    """Ends the process at the first signal that asks for it, or notes it while a run is in the middle of its training.

    A second one ends the process whatever it does, inside a C++ function as well. SIGUSR1 is only ever noted.

    Attributes:
        told: The signal that came first.
        is_deferred: Whether somebody sees to it that the process ends, at a better time.
    """

    def __init__(self) -> None:
        self.told: signal.Signals | None = None
        self.is_deferred = False
        self._is_asked = False  # by one of `ENDING`
        self._handled: list[signal.Signals] = []
        self._next_one_kills: threading.Timer | None = None
        self._again: threading.Timer | None = None

    @contextmanager
    def handled(self, *, may_continue: bool) -> Iterator[None]:
        """Handles the signals within the context; one that is ignored, as by nohup or in the background, stays so.

        Args:
            may_continue: Whether what runs can go on later, so that SIGUSR1 is for it.
        """
        signals = [*ENDING, TO_BE_CONTINUED] if may_continue else [*ENDING]
        if threading.current_thread() is not threading.main_thread():  # Python's only one for signals
            signals = []
        before = {number: signal.getsignal(number) for number in signals}
        self.told, self.is_deferred, self._is_asked, self._next_one_kills, self._again = None, False, False, None, None
        self._handled = [number for number, handler in before.items() if handler != signal.SIG_IGN]
        for number in self._handled:
            signal.signal(number, self._note)
        hook = sys.unraisablehook
        sys.unraisablehook = lambda error: self._end_again() if error.exc_type is SystemExit else hook(error)
        try:
            yield
            if self._is_asked and not self.is_deferred:  # and nobody heard of it, as in a callback of a C++ function
                self._end()
        finally:
            sys.unraisablehook = hook
            for timer in (self._next_one_kills, self._again):
                if timer is not None:
                    timer.cancel()
            for number in self._handled:
                signal.signal(number, before[number])

    def release(self) -> None:
        """Ends a time in which signals were deferred, and the process, if it was asked to.

        Raises:
            SystemExit: If it was.
        """
        self.is_deferred = False
        if self._is_asked:
            self._end()

    def ignore(self) -> None:
        """Ignores SIGTERM from here on: SLURM's, for a job that is taken off its machine because it asked for that."""
        if self._next_one_kills is not None:
            self._next_one_kills.cancel()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.told = self.told or signal.Signals(number)
        if number == TO_BE_CONTINUED or self._is_asked:
            return
        self._is_asked = True
        if self._next_one_kills is None:
            self._next_one_kills = threading.Timer(ONE_AND_THE_SAME, self._stop_handling)
            self._next_one_kills.daemon = True
            self._next_one_kills.start()
        if not self.is_deferred:
            self._end()
        _say(f"{self.told.name}: saving a checkpoint, then exiting; send the signal again to exit at once")

    def _stop_handling(self) -> None:
        """Lets the system end the process at the next signal; Python itself could do so in the main thread alone."""
        for number in self._handled:
            ctypes.CDLL(None).signal(int(number), None)

    def _end(self) -> None:
        assert self.told is not None
        _say(f"ended by {self.told.name}")
        raise SystemExit(status_of(self.told))

    def _end_again(self) -> None:
        """Signals once more when the signal came within ``__del__``, out of which no exception comes."""
        self._again = threading.Timer(ONE_AND_THE_SAME / 10, self._signal_again)
        self._again.daemon = True
        self._again.start()

    def _signal_again(self) -> None:
        thread = threading.main_thread().ident
        assert self.told is not None
        assert thread is not None
        self._is_asked = False
        signal.pthread_kill(thread, self.told)  # that thread, since it may sleep


SIGNALS = EndSignals()


def status_of(number: signal.Signals) -> int:
    """Exit status of a run that was told to leave."""
    return LEFT_EARLY if number == TO_BE_CONTINUED else KILLED + number


def _say(text: str) -> None:
    """Writes a line on stderr, once for all ranks of a node; loggers and streams may be in use when a signal comes."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        with suppress(OSError):  # SIGHUP: the terminal has gone
            os.write(2, f"r3cnn: {text}\n".encode())


def leave_signals_to_parent(_: int) -> None:
    """Keeps a process that loads data alive when the whole process group is told to end; its parent ends it.

    A terminal, `timeout` and SLURM signal the group; SIGTERM counts only where the parent sends it.
    """
    for number in (signal.SIGINT, signal.SIGHUP, TO_BE_CONTINUED):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS, where any SIGTERM ends it
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_when_the_parent_says_so, daemon=True).start()


def _end_when_the_parent_says_so() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


def end_silently() -> None:
    """Lets the system end a process of a pool; its parent says so. One that lived on could outlive a killed parent."""
    for number in ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
