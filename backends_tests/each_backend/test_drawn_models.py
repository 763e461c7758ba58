"""Tests of the library against the oracle on four models that cover every option, and on drawn ones.

A failure prints the call that reproduces its case.
"""

import pytest
from hypothesis import given

from backends_tests import strategies
from backends_tests.adapters.keras_model import Adapter
from backends_tests.compare import assert_within
from backends_tests.profiles import examples
from spec.conformance.observations import (
    GRADIENT,
    LOGITS,
    LOSS,
    PREDICTION,
    TARGET,
    Subject,
    difference,
)

MODEL = pytest.mark.clause(
    "INPUT-1",
    "INPUT-2",
    "TUBE-1",
    "TUBE-2",
    "POS-1",
    "POS-4",
    "POS-5",
    "EMBED-1",
    "EMBED-2",
    "BLOCK-1",
    "BLOCK-2",
    "BLOCK-3",
    "BLOCK-4",
    "BLOCK-6",
    "BLOCK-7",
    "BLOCK-8",
    "OPTION-1",
    "OPTION-2",
    "OPTION-4",
    "IMAGE-1",
    "IMAGE-4",
    "WEIGHT-2",
)
PRETRAINING = pytest.mark.clause(
    "OPTION-3",
    "ENC-1",
    "ENC-2",
    "DEC-1",
    "DEC-2",
    "DEC-3",
    "DUAL-1",
    "DUAL-2",
    "TARGET-1",
    "TARGET-2",
    "TARGET-3",
    "IMAGE-2",
    "IMAGE-5",
    "IMAGE-6",
    "LOSS-1",
    "LOSS-2",
)
CLASSIFIER = pytest.mark.clause("FT-1", "FT-2", "FT-4", "IMAGE-3")


def check(case, *quantities):
    """Compare the quantities that a model computes with the oracle's."""
    subject = Subject(Adapter())
    for quantity in quantities:
        found = difference(quantity, subject.answer(quantity, case), quantity.oracle(case))
        assert_within(found.error, quantity.name, f"{quantity.name} of {case}: {found.text}")


def check_pretraining(case):
    """Compare losses in inference for models with drop-path, gradients in training for the others."""
    check(case, PREDICTION, TARGET, LOSS if case.config.drop_path else GRADIENT)


@MODEL
@PRETRAINING
@pytest.mark.parametrize("case", strategies.EVERY_OPTION, ids=lambda case: case.name)
def test_models_with_every_option_are_the_oracles(case):
    check_pretraining(case)


@MODEL
@CLASSIFIER
@pytest.mark.parametrize("case", strategies.CLASSIFIERS, ids=lambda case: case.name)
def test_classifiers_with_every_option_are_the_oracles(case):
    check(case, LOGITS)


@MODEL
@PRETRAINING
@examples(1, smallest=False)
@given(case=strategies.cases())
def test_a_drawn_model_is_the_oracles(case):
    check_pretraining(case)


@MODEL
@CLASSIFIER
@examples(1, smallest=False)
@given(case=strategies.classifiers())
def test_a_drawn_classifier_is_the_oracles(case):
    check(case, LOGITS)
