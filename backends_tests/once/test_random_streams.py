"""Tests of random streams: purposes, numbers and seeds all draw differently, and nothing else draws."""

import ast
import itertools

import numpy as np
import pytest

from backends_tests.support import ROOT
from vmae_keras.config import VideoMAEConfig
from vmae_keras.data.random_streams import SEED_LIMIT, Purpose, generator, keras_seed
from vmae_keras.recipes.distillation import RECIPES as DISTILLATION
from vmae_keras.recipes.fine_tuning import RECIPES as FINE_TUNING
from vmae_keras.recipes.pretraining import RECIPES as PRETRAINING
from vmae_keras.runs.settings import DistillationSettings, FineTuningSettings, PretrainingSettings

# Zero padding or joining of words would give these seeds or numbers the same stream.
SEEDS = [0, 1, 5, 2**32 - 1, 2**32, 2**32 + 1, 5 * 2**32 + 1, SEED_LIMIT - 1]


@pytest.mark.clause("RANDOM-1")
def test_no_two_streams_draw_alike():
    numbers = [(), *((number,) for number in SEEDS), *itertools.product(SEEDS[:5], repeat=2)]
    streams = list(itertools.product(SEEDS, Purpose, numbers))
    drawn = {
        generator(seed, purpose, *each).bit_generator.random_raw()
        for seed, purpose, each in streams
    }
    drawn |= {np.random.default_rng(seed).bit_generator.random_raw() for seed in SEEDS}
    assert len(drawn) == len(streams) + len(SEEDS)
    seeds = {keras_seed(seed) for seed in SEEDS}
    assert len(seeds) == len(SEEDS)
    assert 0 <= min(seeds) < 2**31 <= max(seeds) < 2**32


@pytest.mark.clause("RANDOM-1")
def test_no_two_numbers_of_a_stream_draw_alike():
    numbers = {*range(1000), *(2**power + 5 for power in range(10, 64))}
    drawn = {generator(0, Purpose.SAMPLE, number).bit_generator.random_raw() for number in numbers}
    assert len(drawn) == len(numbers)


@pytest.mark.clause("RANDOM-1")
def test_a_stream_is_given_by_seed_purpose_and_number():
    for number in (3, np.int64(3)):
        again = generator(np.uint32(7), Purpose.SAMPLE, number).random(4)
        np.testing.assert_array_equal(again, generator(7, Purpose.SAMPLE, 3).random(4))


@pytest.mark.clause("RANDOM-1")
@pytest.mark.parametrize("seed", [-1, SEED_LIMIT, 10**30])
def test_seeds_out_of_range_are_refused(seed):
    message = f"must be from 0 to 18446744073709551615. Received: {seed}"
    with pytest.raises(ValueError, match=f"`seed` {message}"):
        generator(seed, Purpose.SAMPLE, 0)
    with pytest.raises(ValueError, match=f"random stream {message}"):
        generator(0, Purpose.SAMPLE, seed)
    config, labels = VideoMAEConfig.variant("tiny"), ("a",)
    for make in (
        lambda: PretrainingSettings("", "", config, PRETRAINING["demo"], seed, ""),
        lambda: FineTuningSettings("", "", None, labels, config, FINE_TUNING["demo"], seed, ""),
        lambda: DistillationSettings(
            "", "", "", None, 1, labels, config, DISTILLATION["demo"], seed, ""
        ),
    ):  # before run.json is written
        with pytest.raises(ValueError, match=f"`seed` {message}"):
            make()


@pytest.mark.clause("RANDOM-1")
def test_the_library_draws_from_named_streams_alone():
    """Allow `default_rng(0)` only where just shapes matter or no seed is given."""
    elsewhere = []
    for path in (ROOT / "vmae_keras").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if path.name == "random_streams.py" or not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            given = [ast.unparse(each) for each in [*node.args, *node.keywords]]
            if name in ("default_rng", "SeedSequence", "Generator") and given != ["0"]:
                elsewhere.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert elsewhere == []
