"""Tests that tests of the model can fail on each backend: the test that a mutant names must catch it."""

import pytest

from backends_tests import forked
from backends_tests.mutant_runs import (
    arguments,
    check_caught,
    check_pass_without,
    environment,
    of_models,
)
from backends_tests.mutant_runs import eager_copy as eager_copy
from backends_tests.support import BACKEND

HERE = [mutant for mutant in of_models() if BACKEND in mutant.backends]


@pytest.fixture(scope="module")
def run(eager_copy):
    """Run tests in the one process for all mutants, which reuses compiled code."""
    session = forked.Session(eager_copy, **environment(BACKEND))
    yield lambda tests: session.run(arguments(tests))
    session.close()


@pytest.mark.parametrize("mutant", HERE, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant, eager_copy, run):
    check_caught(mutant, eager_copy, run)


def test_named_tests_pass_without_a_mutant(eager_copy, run):
    check_pass_without(HERE, eager_copy, run)
