"""Applies mutants to a copy of the library and its tests, and runs the tests that they name there.

That a test passes in a copy without mutants shows that the mutant made it fail, and that the copy was
imported.
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
from backends_tests.mutants import MUTANTS, Mutant
from backends_tests.support import ROOT
from vmae_keras import backend

# The quickest first, as none compiles here.
BACKENDS = [name for name in ("torch", "tensorflow", "jax") if name in backend.installed()]
needs_backend = pytest.mark.skipif(not BACKENDS, reason="no backend is installed")

# The same examples in every run, and no search for a smaller one.
HYPOTHESIS = """
from hypothesis import Phase, settings

settings.register_profile(
    "mutants", derandomize=True, database=None, deadline=None, report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("mutants")
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy in which one mutant after another is applied and taken back."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("vmae_keras", "spec", "backends_tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "conftest.py").write_text(HYPOTHESIS, "utf-8")
    # Compiled once. By their hashes, as a mutant may have the original's size, and its time in seconds.
    compileall.compile_dir(folder, quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
    return folder


@contextmanager
def applied(mutant: Mutant, copy: Path):
    """Replace the mutant's text in the copy, until the end of the block."""
    path = copy / "vmae_keras" / mutant.file
    text = path.read_text("utf-8")
    count = text.count(mutant.old)
    assert count == 1, f"Stale: {mutant.old!r} occurs {count} times in {mutant.file}, not once."
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    try:
        yield
    finally:
        path.write_text(text, "utf-8")


def run(copy: Path, tests: list[str]):
    """Return pytest's exit status and summary."""
    absent = ("cacheprovider", "unraisableexception")  # which collects garbage for long
    options = ["-q", "-rf", "--tb=no", "--assert=plain", *(f"-pno:{name}" for name in absent)]
    return forked.run(
        copy, [*options, *(f"backends_tests/{test}" for test in tests)],
        KERAS_BACKEND=BACKENDS[0], HYPOTHESIS_PROFILE="mutants", OMP_NUM_THREADS="1",
        TF_CPP_MIN_LOG_LEVEL="3", COLUMNS="1000",  # for whole reasons
    )  # fmt: skip


def check_caught(mutant: Mutant, copy: Path):
    """Assert that the mutant's test fails by a wrong value, not by a crash that any test would notice."""
    with applied(mutant, copy):
        status, text = run(copy, [mutant.test])
    assert status == pytest.ExitCode.TESTS_FAILED, text
    reasons = re.findall(r"^FAILED .*? - (.*)", text, re.M)
    assert reasons and all(why.startswith(("AssertionError", "Failed: ")) for why in reasons), text


def check_pass_without(mutants: list[Mutant], copy: Path):
    """Assert that the tests which mutants name pass without them, and with one that changes nothing."""
    status, text = run(copy, sorted({mutant.test for mutant in mutants}))
    assert status == pytest.ExitCode.OK, text
    with applied(replace(mutants[0], new=mutants[0].old), copy):
        assert run(copy, [mutants[0].test])[0] == pytest.ExitCode.OK


def of(folder: str) -> list[Mutant]:
    """Return the mutants whose tests lie in a folder of `backends_tests`."""
    return [mutant for mutant in MUTANTS if mutant.test.startswith(f"{folder}/")]
