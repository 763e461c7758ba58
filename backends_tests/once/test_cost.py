"""Tests of multiply-accumulates: against the oracle and the published table."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from spec import cost_reference
from spec.config import VARIANTS as PUBLISHED
from vmae_keras import VideoMAEConfig, backend, masks
from vmae_keras.cost import pretraining_multiply_accumulates, view_multiply_accumulates
from vmae_keras.distribution import Devices
from vmae_keras.recipes.pretraining import RECIPES
from vmae_keras.runs.settings import PretrainingSettings
from vmae_keras.training.display import Display
from vmae_keras.variants import VARIANTS

# Pretraining where it differs from V1's, by the first part of a variant's name.
MASKING = {"v2": {"decoder_ratio": 0.5}, "mae": {"kind": "random", "ratio": 0.75}}
COUNTS = st.integers(1, 2048)


@pytest.mark.clause("COUNT-3", "COUNT-5")
@given(st.sampled_from(sorted(VARIANTS)), st.integers(1, 1000))
def test_cost_of_a_view_equals_the_oracle(name, classes):
    config = VideoMAEConfig.variant(name)
    expected = cost_reference.view_multiply_accumulates(config, classes)
    assert view_multiply_accumulates(config, classes) == expected


@pytest.mark.clause("COUNT-4", "COUNT-5")
@given(st.sampled_from(sorted(VARIANTS)), COUNTS, COUNTS)
def test_cost_of_pretraining_equals_the_oracle(name, visible, decoded):
    config = VideoMAEConfig.variant(name)
    expected = cost_reference.pretraining_multiply_accumulates(config, visible, decoded)
    assert pretraining_multiply_accumulates(config, visible, decoded) == expected


@pytest.mark.clause("COUNT-3", "COUNT-4", "COUNT-5")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_variants_cost_what_the_table_says(name):
    config, published = VideoMAEConfig.variant(name), PUBLISHED[name]
    assert view_multiply_accumulates(config) == published["view_multiply_accumulates"]
    if name.startswith("vit"):  # only encoder and classifier
        return
    masking = MASKING.get(name.partition("-")[0], {})
    ids = masks.pretraining(config.grid, np.random.default_rng(0), **masking)
    got = pretraining_multiply_accumulates(config, len(ids["visible"]), len(ids["decoded"]))
    assert got == published["pretraining_multiply_accumulates"]


class VideoMAE:
    """Stub with only the attributes that the display reads."""

    def count_params(self):
        return PUBLISHED["v2-g"]["pretraining_parameters"]


def test_a_run_tells_what_its_model_costs(monkeypatch):
    monkeypatch.setattr(backend, "device", lambda: "cpu")
    console = Console(file=io.StringIO(), width=80)
    config = VideoMAEConfig.variant("v2-g")
    recipe = RECIPES["v2-hybrid-g"]
    settings = PretrainingSettings("clips", "0", config, recipe, 0, "jax")
    model = VideoMAE()
    Display(console).start(settings, model, 0, 100, 10, 90, 10, Devices())
    cost = PUBLISHED["v2-g"]["pretraining_multiply_accumulates"] / 1e9
    line = f"VideoMAE: 1026.3 M weights, 16 x 224 x 224 clips, 2048 tokens, {cost:.0f} GMAC forward"
    assert line in console.file.getvalue().splitlines()
