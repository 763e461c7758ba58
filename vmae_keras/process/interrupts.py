"""Handling of Ctrl-C and SIGTERM during a whole command.

Until a command begins its work, either signal ends the process at once, because packages could swallow an
exception while they are imported. Inside `unwinding`, a signal raises `Stopped`, so that child processes
are ended and temporary files deleted. Training installs its own handlers, which stop it after the current
step. The exit code is 130 after Ctrl-C and 143 after SIGTERM.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A second signal within these seconds is ignored: it is a Ctrl-C that a launcher forwards once more.
PASSED_ON_SECONDS = 1.0

_received: tuple[int, float] | None = None  # the first signal, and its time
_unwinding = _deferred = 0


class Stopped(SystemExit):
    """Ctrl-C or SIGTERM. It is a SystemExit, so that no `except Exception` catches it.

    Attributes:
        told: Whether the user has been told how to resume.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.told = False


def install() -> None:
    """Install handlers for both signals. Call it before anything heavy is imported."""
    for number in SIGNALS:
        signal.signal(number, _handle)
    sys.unraisablehook = _report_unraisable


def received() -> int | None:
    """Return the signal that this process received outside training, if any."""
    return _received and _received[0]


def check() -> None:
    """Raise `Stopped` again if a library swallowed it. Call it between pieces of work."""
    if _received and _unwinding:
        raise Stopped(_received[0])


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Let a signal raise `Stopped` instead of ending the process at once."""
    global _unwinding
    _unwinding += 1
    try:
        yield
        check()
    finally:
        _unwinding -= 1


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Defer `Stopped` to the end of the block, which imports packages."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1
    if _received and not _deferred:
        _stop(_received[0])


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Block both signals in this thread. Processes that it starts in the block never receive them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    now = time.monotonic()
    if _received is None:
        _received = (number, now)
        if not (_deferred and _unwinding):
            _stop(number)
    elif now - _received[1] > PASSED_ON_SECONDS:  # a second signal
        _end(number)


def _stop(number: int) -> NoReturn:
    if _unwinding:
        raise Stopped(number)
    _end(number)


def _end(number: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the stream may be in use
            stream.flush()
    os._exit(128 + number)


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """End the process if Python swallows `Stopped`, as in a `__del__`."""
    if _received and isinstance(unraisable.exc_value, Stopped):
        _end(_received[0])
    sys.__unraisablehook__(unraisable)
