"""The tests can fail: each mutant of the library must be caught by the test that it names.

A mutant is applied to a copy of the library and its tests, and the named test runs there. That it passes in
a copy without mutants shows that the mutant made it fail, and that the copy was imported.
"""

import re
import shutil
from dataclasses import replace

import pytest

from backends_tests import forked
from backends_tests.mutants import MUTANTS
from backends_tests.support import ROOT
from vmae_keras import backend

# The quickest first, as none compiles here.
BACKENDS = [name for name in ("torch", "tensorflow", "jax") if name in backend.installed()]
pytestmark = pytest.mark.skipif(not BACKENDS, reason="no backend is installed")

# The same examples in every run, and no search for a smaller one.
HYPOTHESIS = """
from hypothesis import Phase, settings

settings.register_profile(
    "mutants", derandomize=True, database=None, deadline=None, report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("mutants")
"""


@pytest.fixture
def copy(tmp_path):
    for name in ("vmae_keras", "spec", "backends_tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "conftest.py").write_text(HYPOTHESIS)
    return tmp_path


def apply(mutant, copy):
    path = copy / "vmae_keras" / mutant.file
    text = path.read_text("utf-8")
    count = text.count(mutant.old)
    assert count == 1, f"Stale: {mutant.old!r} occurs {count} times in {mutant.file}, not once."
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")


def run(copy, tests):
    """Pytest's exit status and summary."""
    absent = ("cacheprovider", "unraisableexception")  # which collects garbage for long
    options = ["-q", "-rf", "--tb=no", "--assert=plain", *(f"-pno:{name}" for name in absent)]
    return forked.run(
        copy, [*options, *(f"backends_tests/{test}" for test in tests)],
        KERAS_BACKEND=BACKENDS[0], HYPOTHESIS_PROFILE="mutants", OMP_NUM_THREADS="1",
        TF_CPP_MIN_LOG_LEVEL="3", COLUMNS="1000",  # for whole reasons
    )  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant, copy):
    apply(mutant, copy)
    status, text = run(copy, [mutant.test])
    assert status == pytest.ExitCode.TESTS_FAILED, text
    # By a wrong value, not by a crash that any test would notice.
    reasons = re.findall(r"^FAILED .*? - (.*)", text, re.M)
    assert reasons and all(why.startswith(("AssertionError", "Failed: ")) for why in reasons), text


def test_named_tests_pass_without_a_mutant(copy):
    status, text = run(copy, sorted({mutant.test for mutant in MUTANTS}))
    assert status == pytest.ExitCode.OK, text


def test_a_mutant_that_changes_nothing_survives(copy):
    mutant = replace(MUTANTS[0], new=MUTANTS[0].old)
    apply(mutant, copy)
    assert run(copy, [mutant.test])[0] == pytest.ExitCode.OK


def test_a_stale_mutant_is_refused(copy):
    with pytest.raises(AssertionError, match="Stale: 'no such text' occurs 0 times"):
        apply(replace(MUTANTS[0], old="no such text"), copy)


def test_names_are_unique():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
