"""Tests of the library against the specification: every check of `spec/conformance`."""

import dataclasses
import functools

import pytest

from backends_tests.adapters.keras_model import Adapter
from backends_tests.compare import record
from backends_tests.support import SEED_SHIFT
from spec.conformance.checks import CHECKS
from spec.conformance.observations import Subject


@pytest.fixture(scope="module")
def subject():
    """Return one adapter for all checks, so that models are built, and mostly compiled, only once."""
    return Subject(Adapter())


def parameters():
    """Return a pytest parameter per check and case. All run in one process, as checks share models."""
    for check in CHECKS:
        for case in check.cases:
            clauses = dict.fromkeys((*check.clauses, *case.clauses))
            marks = pytest.mark.clause(*clauses)
            yield pytest.param(check, case, id=f"{check.name}: {case.name}", marks=marks)


@functools.cache
def seeded(case):
    """Return the case with a shifted seed, as one object, because checks share its answers."""
    return dataclasses.replace(case, seed=case.seed + SEED_SHIFT)


@pytest.mark.parametrize(("check", "case"), list(parameters()))
def test_conforms(subject, check, case):
    finding = check.examine(subject, seeded(case))
    if check.tolerance:
        record(check.tolerance, finding.measured)
    assert finding.passed, f"{finding.measured:.2g} > {finding.tolerance:.2g}: {finding.text}"
