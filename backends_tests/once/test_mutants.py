"""Tests that tests without a backend can fail: each mutant must be caught by the test that it names."""

from dataclasses import replace

import pytest

from backends_tests.mutant_runs import (
    applied,
    check_caught,
    check_pass_without,
    forked_run,
    needs_backend,
    of,
    of_models,
)
from backends_tests.mutant_runs import copy as copy
from backends_tests.mutants import MUTANTS
from vmae_keras.backend import BACKENDS

pytestmark = needs_backend
HERE = of("once")


@pytest.mark.parametrize("mutant", HERE, ids=lambda mutant: mutant.name)
def test_mutant_is_caught(mutant, copy):
    check_caught(mutant, copy, forked_run(copy))


def test_named_tests_pass_without_a_mutant(copy):
    check_pass_without(HERE, copy, forked_run(copy))


def test_a_stale_mutant_is_refused(copy):
    stale = replace(MUTANTS[0], old="no such text")
    with (
        pytest.raises(AssertionError, match="Stale: 'no such text' occurs 0 times"),
        applied(stale, copy),
    ):
        pass


def test_names_are_unique():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_every_mutant_is_tried():
    tried = (*HERE, *of("each_backend"), *of_models())
    assert {mutant.name for mutant in tried} == {mutant.name for mutant in MUTANTS}
    assert all(set(mutant.backends) <= set(BACKENDS) for mutant in MUTANTS)
