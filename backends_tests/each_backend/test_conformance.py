"""The library against the specification: every check of `spec/conformance`, and models drawn at random."""

import dataclasses
import functools

import pytest
from hypothesis import given

from backends_tests import strategies
from backends_tests.adapters.keras_model import Adapter
from backends_tests.compare import assert_within, record
from backends_tests.support import SEED_SHIFT
from spec.conformance.checks import CHECKS
from spec.conformance.observations import LOSS, PREDICTION, Subject, difference


@pytest.fixture(scope="module")
def subject():
    """Models are built, and mostly compiled, once for all checks."""
    return Subject(Adapter())


def parameters():
    """A test per check and case; in one process, as checks share models."""
    for check in CHECKS:
        for case in check.cases:
            clauses = dict.fromkeys((*check.clauses, *case.clauses))
            marks = pytest.mark.clause(*clauses)
            yield pytest.param(check, case, id=f"{check.name}: {case.name}", marks=marks)


@functools.cache
def seeded(case):
    """Once for each case, as checks share its answers."""
    return dataclasses.replace(case, seed=case.seed + SEED_SHIFT)


@pytest.mark.parametrize(("check", "case"), list(parameters()))
def test_conforms(subject, check, case):
    finding = check.examine(subject, seeded(case))
    if check.tolerance:
        record(check.tolerance, finding.measured)
    assert finding.passed, f"{finding.measured:.2g} > {finding.tolerance:.2g}: {finding.text}"


@pytest.mark.clause("TUBE-1", "TUBE-2", "BLOCK-1", "DEC-1", "DUAL-1", "DUAL-2", "LOSS-1", "LOSS-2")
@strategies.profile()
@given(case=strategies.cases())
def test_a_drawn_model_predicts_what_the_oracle_does(case):
    subject = Subject(Adapter())
    for quantity in (PREDICTION, LOSS):
        found = difference(quantity, subject.answer(quantity, case), quantity.oracle(case))
        assert_within(found.error, quantity.name, f"{quantity.name} {found.text}")
