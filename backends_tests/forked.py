"""Pytest runs in a copy of the project, in processes forked from one that has already imported Keras.

Importing Keras with a backend takes longer than most tests, so Python's "fork server" does it once. One
process per run is the safest. If many runs share compiled code, a `Session` uses one process for all.
"""

import gc
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from unittest import mock

LIMIT = 240  # seconds
# Imported once, with their dependencies. Nothing of this project, as each copy has its own.
PRELOADED = ["keras", "hypothesis", "pytest", "grain", "av", "PIL.Image", "matplotlib.figure"]


def run(
    copy: Path, arguments: list[str], limit: float = LIMIT, **environment: str
) -> tuple[int | None, str]:
    """Return pytest's exit status (None after a timeout) and its output.

    The first call sets `environment`; later calls must pass the same one.
    """
    process = _start(_run_once, copy, arguments, **environment)
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
    return None if process.exitcode == -signal.SIGKILL else process.exitcode, _output(copy)


class Session:
    """Process that runs pytest repeatedly and imports the project anew each time.

    Frameworks stay imported and compiled code stays in memory, so a run takes a tenth of a second.
    """

    def __init__(self, copy: Path, **environment: str):
        self.copy = copy
        self.mine, theirs = multiprocessing.Pipe()
        self.process = _start(_serve, copy, theirs, **environment)
        theirs.close()

    def run(self, arguments: list[str]) -> tuple[int | None, str]:
        """Return pytest's exit status (None after a timeout) and its output."""
        self.mine.send(arguments)
        if not self.mine.poll(LIMIT):
            self.process.kill()
            return None, _output(self.copy)
        return self.mine.recv(), _output(self.copy)

    def close(self):
        self.mine.close()
        self.process.join()


def _start(target, copy, *arguments, **environment):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=target, args=(copy, *arguments))
    with mock.patch.dict(os.environ, environment):
        process.start()
    return process


def _output(copy):
    return (copy / "output.txt").read_text("utf-8")


def _enter(copy):
    """Set up the new process: redirect output to a file, and import the project only from the copy."""
    gc.freeze()  # scanning the objects of Keras takes longer than most tests
    for name in [name for name in os.environ if name.startswith("PYTEST")]:  # of the outer run
        del os.environ[name]
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    _forget()
    file = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _forget():
    """Drop the project's modules, so that they are imported anew.

    No mutant changes the specification: keep it.
    """
    for name in list(sys.modules):
        if name.partition(".")[0] in ("vmae_keras", "backends_tests", "conftest"):
            del sys.modules[name]


def _pytest(arguments):
    import pytest

    os.truncate("output.txt", 0)
    status = int(pytest.main(arguments))
    sys.stdout.flush()
    return status


def _run_once(copy, arguments):
    _enter(copy)
    sys.exit(_pytest(arguments))


def _serve(copy, connection):
    _enter(copy)
    while True:
        try:
            arguments = connection.recv()
        except EOFError:
            return
        connection.send(_pytest(arguments))
        _forget()
