"""Tests of Ctrl-C and SIGTERM before, during and after a command's work, each at an exact place."""

import os
import signal
import subprocess
import sys

import pytest

from backends_tests.support import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"}
NUMBERS = (signal.SIGINT, signal.SIGTERM)

# A package whose import is interrupted and that swallows every exception meanwhile.
IMPORT = """
import importlib.abc, os, sys
number, package, *sys.argv[1:] = sys.argv[1:]
class Interrupted(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == package:
            try:
                os.kill(os.getpid(), int(number))
            except BaseException:
                pass
sys.meta_path.insert(0, Interrupted())
from vmae_keras.__main__ import main
main()
"""
WORK = """
import gc, os, pathlib, sys
from vmae_keras.process import interrupts
interrupts.PASSED_ON_SECONDS = float("inf")
interrupts.install()
number, place = int(sys.argv[1]), sys.argv[2]
from vmae_keras.cli.shared.folder import continued_by
class Deleted:
    def __del__(self):
        os.kill(os.getpid(), number)
with continued_by("vmae features a b", pathlib.Path("out")):
    if place == "plain":
        os.kill(os.getpid(), number)
    if place == "swallowed":
        try:
            os.kill(os.getpid(), number)
        except BaseException:
            pass
        os.kill(os.getpid(), number)  # once more, as a launcher does
        interrupts.check()
    if place == "deleted":
        Deleted()
    if place == "importing":
        with interrupts.deferred():
            os.kill(os.getpid(), number)
            print("imported", flush=True)
    print("went on")
"""


def run(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("package", ["typer", "keras"])
def test_a_signal_while_packages_are_imported_ends_the_command_at_once(package, number, tmp_path):
    (tmp_path / "clip.mp4").touch()
    command = ("pretrain", tmp_path, "--out", tmp_path / "run")
    assert run(IMPORT, number.value, package, *command) == (128 + number, "", "")


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("place", ["plain", "swallowed", "importing"])
def test_a_signal_in_the_work_unwinds_it_and_says_how_to_continue(place, number):
    code, text, errors = run(WORK, number.value, place)
    assert (code, errors) == (128 + number, "")
    assert text.removeprefix("imported\n") == "Stopped.\nContinue with: vmae features a b\n"


def test_a_signal_that_python_swallows_ends_the_process():
    assert run(WORK, signal.SIGINT.value, "deleted") == (130, "", "")


def test_a_signal_after_the_work_ends_the_process_without_a_traceback():
    program = (
        "import atexit, os\nfrom vmae_keras.process import interrupts\ninterrupts.install()\n"
        "atexit.register(lambda: os.kill(os.getpid(), 2))\nprint('Done')"
    )
    assert run(program) == (130, "Done\n", "")
