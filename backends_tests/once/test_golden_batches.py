"""Tests that a seed draws the same as in the version that wrote golden_batches.json."""

import json

import pytest

from backends_tests import golden_batches
from vmae_keras.data.random_streams import DRAWS

GOLDEN = json.loads(golden_batches.FILE.read_text())
CHANGED = (
    "A seed draws other {stage} than in version {version}, so that a run which began before would go on "
    "otherwise. If this is meant, make `random_streams.DRAWS` one more, announce it in CHANGELOG.md, and "
    "write the new numbers with `python -m backends_tests.golden_batches`."
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return golden_batches.batches(tmp_path_factory.mktemp("golden"))


@pytest.mark.clause("RANDOM-1")
@pytest.mark.parametrize("stage", [name for name in GOLDEN if name not in ("version", "draws")])
def test_a_seed_draws_what_it_drew(stage, found):
    same = all(close(found[stage][name], value) for name, value in GOLDEN[stage].items())
    assert same, CHANGED.format(stage=stage, version=GOLDEN["version"])


def close(one, other):
    """Return whether nested lists are equal, with numbers up to the rounding of a pixel."""
    if isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    # Sums of pixels in float32, stored to six places.
    return one == pytest.approx(other, abs=2e-5) if isinstance(other, float) else one == other


def test_the_golden_batches_are_of_this_version_of_draws():
    assert GOLDEN["draws"] == DRAWS, (
        "write them anew with `python -m backends_tests.golden_batches`"
    )
    assert GOLDEN.keys() >= {*golden_batches.RECIPES, "probe", "first weights"}
