"""Runs of the tests that mutants name, in a copy of the library and its tests with the mutant applied.

The tests must also pass in a copy without mutants. This shows that the mutant caused the failure and that
the copy was imported.
"""

import compileall
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

from backends_tests import forked
from backends_tests.mutants import MODEL_FILES, MUTANTS, Mutant
from backends_tests.support import ROOT
from vmae_keras import backend

# The fastest first, as nothing is compiled here.
BACKENDS = [name for name in ("torch", "tensorflow", "jax") if name in backend.installed()]
needs_backend = pytest.mark.skipif(not BACKENDS, reason="no backend is installed")


# Eager execution: code compiled in one mutant's run is reused by the next, unlike a whole compiled step.
EAGERLY = """
import keras

keras.Model.run_eagerly = property(lambda self: True, lambda self, value: None)
"""


def made_copy(folder: Path, conftest: str = "") -> Path:
    """Return a copy of the project in which mutants are applied and reverted one after another."""
    for name in ("vmae_keras", "spec", "backends_tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return prepared(folder, conftest)


def prepared(folder: Path, conftest: str = "") -> Path:
    """Return the folder of a copy that has a `conftest.py` and is compiled once."""
    (folder / "conftest.py").write_text(conftest, "utf-8")
    # Check bytecode by hash, as a mutant may have the original's size and its time in seconds.
    compileall.compile_dir(folder, quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return folder


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return made_copy(tmp_path_factory.mktemp("copy"))


@pytest.fixture(scope="module")
def eager_copy(tmp_path_factory):
    """Return a copy whose models run eagerly."""
    return made_copy(tmp_path_factory.mktemp("copy"), EAGERLY)


@contextmanager
def applied(mutant: Mutant, copy: Path):
    """Replace the mutant's text in the copy until the end of the block."""
    path = copy / "vmae_keras" / mutant.file
    text = path.read_text("utf-8")
    count = text.count(mutant.old)
    assert count == 1, f"Stale: {mutant.old!r} occurs {count} times in {mutant.file}, not once."
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    try:
        yield
    finally:
        path.write_text(text, "utf-8")


def arguments(tests: list[str]) -> list[str]:
    """Return the pytest arguments for these tests."""
    absent = ("cacheprovider", "unraisableexception")  # its garbage collection is slow
    options = ["-q", "-rf", "--tb=no", "--assert=plain", *(f"-pno:{name}" for name in absent)]
    return [*options, *(f"backends_tests/{test}" for test in tests)]


def environment(backend: str) -> dict[str, str]:
    """Return the environment variables of a process that runs mutants."""
    return {
        "KERAS_BACKEND": backend,
        "HYPOTHESIS_PROFILE": "mutants",
        "OMP_NUM_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "COLUMNS": "1000",  # do not truncate failure reasons
    }


def forked_run(copy: Path):
    """Return a function from tests to pytest's exit status and output, which forks a process per call."""
    return lambda tests: forked.run(copy, arguments(tests), **environment(BACKENDS[0]))


def check_caught(mutant: Mutant, copy: Path, run):
    """Raise unless the mutant's test fails on a wrong value, not a crash that any test would notice."""
    with applied(mutant, copy):
        status, text = run([mutant.test])
    assert status == pytest.ExitCode.TESTS_FAILED, text
    reasons = re.findall(r"^FAILED .*? - (.*)", text, re.M)
    assert reasons and all(why.startswith(("AssertionError", "Failed: ")) for why in reasons), text


def check_pass_without(mutants: list[Mutant], copy: Path, run):
    """Raise unless the named tests pass without mutants, and with a mutant that changes nothing."""
    status, text = run(sorted({mutant.test for mutant in mutants}))
    assert status == pytest.ExitCode.OK, text
    with applied(replace(mutants[0], new=mutants[0].old), copy):
        assert run([mutants[0].test])[0] == pytest.ExitCode.OK


def of(folder: str) -> list[Mutant]:
    """Return the mutants whose tests are in a folder of `backends_tests`, except those of the model."""
    return [m for m in MUTANTS if m.test.startswith(f"{folder}/") and m not in of_models()]


def of_models() -> list[Mutant]:
    """Return the mutants that are tested on each backend."""
    return [m for m in MUTANTS if m.test.startswith("each_backend/") and m.file in MODEL_FILES]
