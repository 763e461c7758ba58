"""Tests of cutting, joining and gathering tubelets."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends_tests.profiles import examples
from backends_tests.support import numpy
from spec import reference
from vmae_keras.tubelets import cut_tubelets, take

parts = st.tuples(*(st.integers(1, 3) for _ in range(3)))


@pytest.mark.clause("TUBE-1", "TUBE-2")
@examples(4)
@given(
    grid=parts,
    tubelet=parts,
    channels=st.integers(1, 4),
    dtype=st.sampled_from(["uint8", "float32"]),
)
def test_tubelets_equal_the_oracle_and_invert(grid, tubelet, channels, dtype):
    frames, height, width = (count * part for count, part in zip(grid, tubelet, strict=True))
    video = np.random.default_rng(0).integers(0, 256, (2, frames, height, width, channels))
    video = video.astype(dtype)
    tokens = cut_tubelets(keras.ops.convert_to_tensor(video), tubelet)
    np.testing.assert_array_equal(numpy(tokens), reference.tubelets(video, tubelet))
    back = reference.untubelets(numpy(tokens), grid, tubelet, channels)
    np.testing.assert_array_equal(back, video)


def test_transposes_stay_within_rank_five(monkeypatch):
    """Check the rank that LiteRT's builtin operators support; the textbook form needs rank eight."""
    ranks = []
    transpose = keras.ops.transpose
    monkeypatch.setattr(
        keras.ops, "transpose", lambda x, axes: ranks.append(len(axes)) or transpose(x, axes)
    )
    cut_tubelets(np.zeros((1, 4, 6, 8, 3), "uint8"), (2, 3, 4))
    assert len(ranks) == 2 and max(ranks) <= 5


def test_take_gathers_each_clips_own_rows():
    rows = np.arange(2 * 5 * 3).reshape(2, 5, 3).astype("float32")
    ids = np.array([[4, 0], [1, 1]], "int32")
    got = take(*(keras.ops.convert_to_tensor(x) for x in (rows, ids)))
    np.testing.assert_array_equal(numpy(got), reference.take(rows, ids))
