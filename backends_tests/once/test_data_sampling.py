"""Tests of dense and uniform positions, as properties and as distributions."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends_tests.chi_square import assert_uniform
from spec import augment_reference
from vmae_keras.data.sampling import dense, spread, uniform

TICKS = st.integers(1, 2000)
FRAMES = st.integers(1, 40)
STRIDES = st.integers(1, 12)
SEEDS = st.one_of(st.none(), st.integers(0, 2**32))


def generator(seed):
    return None if seed is None else np.random.default_rng(seed)


@pytest.mark.clause("DATA-1", "DATA-2")
@given(TICKS, FRAMES, STRIDES, SEEDS)
def test_dense_is_an_evenly_spaced_window_inside_the_video(ticks, frames, stride, seed):
    positions = dense(ticks, frames, stride, generator(seed))
    assert positions.shape == (frames,) and positions.dtype == np.int64
    assert positions.min() >= 0 and positions.max() < ticks
    if ticks >= frames * stride:
        np.testing.assert_array_equal(np.diff(positions), stride)
        assert positions[0] + frames * stride <= ticks
    else:
        np.testing.assert_array_equal(positions, np.minimum(stride * np.arange(frames), ticks - 1))


@pytest.mark.clause("DATA-1", "AUG-11", "MASK-6")
@pytest.mark.parametrize(("sample", "starts"), [(dense, 5), (spread, 4)])
def test_every_start_is_equally_likely(sample, starts):
    """Check that successive draws are independent, too."""
    draws = np.random.default_rng(0)
    drawn = [int(sample(20, 4, 4, draws)[0]) for _ in range(1000)]
    assert_uniform(itertools.pairwise(drawn), itertools.product(range(starts), repeat=2))


def test_dense_without_a_generator_is_the_centre_window():
    assert dense(20, 4, 4).tolist() == [2, 6, 10, 14]
    assert dense(16, 4, 4).tolist() == [0, 4, 8, 12]


@pytest.mark.clause("DATA-2")
def test_dense_pads_a_short_video_with_its_last_frame():
    assert dense(10, 5, 4).tolist() == [0, 4, 8, 9, 9]


@pytest.mark.clause("AUG-11")
@given(TICKS, FRAMES, STRIDES, st.floats(0, 1, exclude_max=True))
def test_spread_equals_the_oracle(ticks, frames, stride, where):
    class Given:
        def integers(self, high):
            self.high, self.start = high, int(where * high)
            return self.start

    drawn = Given()
    positions = spread(ticks, frames, stride, drawn)
    assert drawn.high == max(ticks - frames * stride, 1)  # the last window is never drawn
    assert positions.dtype == np.int64
    expected = augment_reference.clip_positions(ticks, frames, stride, drawn.start)
    np.testing.assert_array_equal(positions, expected)
    centre = augment_reference.clip_positions(
        ticks, frames, stride, max(ticks - frames * stride, 0) // 2
    )
    np.testing.assert_array_equal(spread(ticks, frames, stride), centre)


@pytest.mark.clause("AUG-11")
def test_spread_fills_its_window():
    """Reach the last of 64 frames with sixteen; every fourth frame would end at 60."""
    assert spread(64, 16, 4).tolist() == [
        0,
        4,
        8,
        12,
        17,
        21,
        25,
        29,
        34,
        38,
        42,
        46,
        51,
        55,
        59,
        63,
    ]
    assert spread(20, 8, 4, np.random.default_rng(0)).tolist() == [0, 5, 10, 15, 19, 19, 19, 19]


@pytest.mark.clause("DATA-3")
@given(TICKS, FRAMES, SEEDS)
def test_uniform_takes_one_position_of_each_segment(ticks, frames, seed):
    positions = uniform(ticks, frames, generator(seed))
    assert positions.shape == (frames,) and positions.dtype == np.int64
    length = ticks // frames
    if seed is None:
        expected = [int((i + 0.5) * ticks / frames) for i in range(frames)]
        np.testing.assert_array_equal(positions, expected)
    elif length:
        np.testing.assert_array_equal(positions // length, np.arange(frames))
    else:
        assert (np.diff(positions) >= 0).all()
    assert positions.min() >= 0 and positions.max() < ticks


@pytest.mark.clause("DATA-3", "MASK-6")
def test_uniform_draws_the_position_of_each_segment_by_itself():
    draws = np.random.default_rng(0)
    drawn = [tuple(uniform(12, 3, draws).tolist()) for _ in range(1500)]
    assert_uniform(drawn, itertools.product(range(4), range(4, 8), range(8, 12)))


def test_uniform_without_a_generator_takes_the_centres():
    assert uniform(16, 4).tolist() == [2, 6, 10, 14]
    assert uniform(3, 6).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda: dense(0, 4, 1),
        lambda: dense(9, 4, 0),
        lambda: uniform(9, 0),
        lambda: spread(9, 4, 0),
    ],
)
def test_counts_below_one_are_refused(call):
    with pytest.raises(ValueError, match=r"must be at least 1. Received: .*=0"):
        call()
