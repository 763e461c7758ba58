"""Tests that backend tests can fail: each mutant must be caught, on one backend, by the test that it names.

`each_backend/test_mutants.py` covers the mutants of the model on each backend.
"""

import pytest

from backends_tests.mutant_runs import (
    check_caught,
    check_pass_without,
    forked_run,
    needs_backend,
    of,
)
from backends_tests.mutant_runs import copy as copy

pytestmark = needs_backend
HERE = of("each_backend")


@pytest.mark.parametrize("mutant", HERE, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant, copy):
    check_caught(mutant, copy, forked_run(copy))


def test_named_tests_pass_without_a_mutant(copy):
    check_pass_without(HERE, copy, forked_run(copy))
