"""Tests that the models for comparisons with the oracle cover every option and are reproducible."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from backends_tests import strategies
from backends_tests.profiles import NIGHTLY
from backends_tests.support import ROOT
from spec.config import Config
from spec.conformance import cases
from vmae_keras import VideoMAEConfig
from vmae_keras.config import ACTIVATIONS

FIELDS = [field.name for field in dataclasses.fields(Config)]
FIXED = strategies.EVERY_OPTION + strategies.CLASSIFIERS


@pytest.fixture(scope="module")
def drawn():
    """Draw a hundred configurations that the library accepts."""
    found = []

    @given(strategies.configurations())
    def draw(config):
        found.append(VideoMAEConfig(**dataclasses.asdict(config)))

    draw()
    return found


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_has_several_values(name, drawn):
    """Fail for a new field of the configuration until the four models and the drawn ones vary it."""
    four = [case.config for case in strategies.EVERY_OPTION]
    for configurations in (four, drawn):
        assert len({getattr(config, name) for config in configurations}) > 1


def test_each_kind_of_batch_is_there():
    for name in ("masking", "video", "clips"):
        values = {str(getattr(case, name)) for case in strategies.EVERY_OPTION}
        assert len(values) >= 3, name
    assert {"weight" in case.batch for case in strategies.EVERY_OPTION} == {False, True}
    assert {case.config.drop_path > 0 for case in strategies.EVERY_OPTION} == {False, True}
    assert {case.pooling for case in strategies.CLASSIFIERS} == {"mean", "first"}
    assert set(strategies.ACTIVATIONS) == set(ACTIVATIONS)


@pytest.mark.parametrize("case", FIXED, ids=lambda case: f"{type(case).__name__}, {case.name}")
def test_what_a_failure_shows_makes_the_case_again(case):
    again = eval(repr(case), {**vars(cases)})
    assert again.config == case.config and repr(again) == repr(case)
    np.testing.assert_equal(again.batch, case.batch)
    np.testing.assert_equal(again.weights, case.weights)


def test_one_profile_holds_for_all_tests():
    default = settings.default
    assert default.deadline is None and default.derandomize is not NIGHTLY
    importers = {
        path.name
        for path in (ROOT / "backends_tests").rglob("*.py")
        if re.search(r"^from hypothesis import .*settings", path.read_text("utf-8"), re.M)
    }
    assert importers == {"profiles.py", Path(__file__).name}
