"""Ctrl-C and SIGTERM, from the first instruction of a command to its last.

Until a command begins its work, either signal ends the process at once: packages that are imported could
swallow an exception. Inside `unwinding` it raises `Stopped`, so that children are ended and temporary files
deleted. Training replaces both by a stop after the running step. The exit code is 130 after Ctrl-C and 143
after SIGTERM.
"""

import contextlib
import os
import signal
import sys
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PASSED_ON_SECONDS = (
    1.0  # within which a launcher passes on the Ctrl-C that its processes have had too
)

_received: tuple[int, float] | None = None  # the first signal, and when it came
_unwinding = _deferred = 0


class Stopped(SystemExit):
    """Ctrl-C or SIGTERM; a SystemExit, so that no `except Exception` keeps it.

    Attributes:
        told: whether it has been said how to continue.
    """

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.told = False


def install():
    """Handle both signals; to be called before anything heavy is imported."""
    for number in SIGNALS:
        signal.signal(number, _handle)
    sys.unraisablehook = _report_unraisable


def received() -> int | None:
    """Return the signal that this process received outside of training, if any."""
    return _received and _received[0]


def check():
    """Raise `Stopped` again where a library swallowed it; to be called between pieces of work."""
    if _received and _unwinding:
        raise Stopped(_received[0])


@contextlib.contextmanager
def unwinding():
    """Let a signal raise `Stopped` instead of ending the process at once."""
    global _unwinding
    _unwinding += 1
    try:
        yield
        check()
    finally:
        _unwinding -= 1


@contextlib.contextmanager
def deferred():
    """Let no signal unwind the block, which imports packages, but what follows it."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1
    if _received and not _deferred:
        _stop(_received[0])


@contextlib.contextmanager
def held():
    """Block both signals in this thread. A process that it starts meanwhile never receives them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handle(number, frame):
    global _received
    now = time.monotonic()
    if _received is None:
        _received = (number, now)
        if not (_deferred and _unwinding):
            _stop(number)
    elif now - _received[1] > PASSED_ON_SECONDS:  # a second one
        _end(number)


def _stop(number):
    if _unwinding:
        raise Stopped(number)
    _end(number)


def _end(number):
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # it may be in use right now
            stream.flush()
    os._exit(128 + number)


def _report_unraisable(unraisable):
    """End where Python itself swallows `Stopped`, as in a `__del__`."""
    if isinstance(unraisable.exc_value, Stopped):
        _end(_received[0])
    sys.__unraisablehook__(unraisable)
