"""Runs pytest in a copy of the project, in a process forked from one that has imported Keras already.

Importing Keras with a backend takes longer than most tests; Python's "fork server" does it once.
"""

import gc
import multiprocessing
import os
import sys
from pathlib import Path
from unittest import mock

LIMIT = 240  # seconds
# Imported once, with what they import; nothing of this project, as each copy has its own.
PRELOADED = ["keras", "hypothesis", "pytest", "grain", "av", "PIL.Image", "matplotlib.figure"]


def run(copy: Path, arguments: list[str], **environment: str) -> tuple[int | None, str]:
    """Pytest's exit status (None if it took too long) and what it printed.

    `environment` is that of the first call: it must be the same in each.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_pytest, args=(copy, arguments))
    with mock.patch.dict(os.environ, environment):
        process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
    return process.exitcode, (copy / "output.txt").read_text("utf-8")


def _pytest(copy, arguments):
    """In the new process: nothing of this project may be taken for the copy's."""
    gc.freeze()  # what Keras made stays: to look through it takes longer than most tests
    for name in [name for name in sys.modules if name.startswith("backends_tests")]:
        del sys.modules[name]
    for name in [name for name in os.environ if name.startswith("PYTEST")]:  # of the outer run
        del os.environ[name]
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    with open("output.txt", "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import pytest

    sys.exit(pytest.main(arguments))
