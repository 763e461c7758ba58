"""Tests of position tables on another grid: against the oracle, and as properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends_tests.compare import assert_close
from spec.position_reference import resize_positions
from vmae_keras.positions import resize, sinusoid

GRIDS = st.tuples(*[st.integers(1, 7)] * 3)
SEEDS = st.integers(0, 2**32)


def random_table(grid, seed, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=(np.prod(grid), 3)).astype(dtype)


@pytest.mark.clause("POS-3")
@given(GRIDS, GRIDS, SEEDS)
def test_resized_table_equals_the_oracle(grid, new_grid, seed):
    table = random_table(grid, seed)
    got = resize(table, grid, new_grid)
    assert got.shape == (np.prod(new_grid), 3)
    expected = resize_positions(table, grid, new_grid)
    assert_close(got, expected, "float64")


@pytest.mark.clause("POS-3")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_an_unchanged_grid_changes_no_bit(dtype):
    table = random_table((2, 3, 4), 0, dtype)
    table[0] = -0.0  # -0.0 would not survive a sum of products
    got = resize(table, (2, 3, 4), (2, 3, 4))
    assert got.dtype == dtype
    assert got.tobytes() == table.tobytes()


@pytest.mark.clause("POS-3")
def test_each_axis_is_resized_by_itself():
    """Check that columns do not affect each other when time is resized, nor frames for space."""
    grid, table = (3, 4, 5), random_table((3, 4, 5), 0)
    frames = resize(table, grid, (6, 4, 5)).reshape(6, 20, 3)
    for place, column in enumerate(table.reshape(3, 20, 3).swapaxes(0, 1)):
        np.testing.assert_array_equal(frames[:, place], resize(column, (3, 1, 1), (6, 1, 1)))
    places = resize(table, grid, (3, 8, 9)).reshape(3, 72, 3)
    for slot, frame in enumerate(table.reshape(3, 20, 3)):
        np.testing.assert_array_equal(places[slot], resize(frame, (1, 4, 5), (1, 8, 9)))


@pytest.mark.clause("POS-3")
def test_time_is_linear_and_space_is_cubic():
    """Check between 0 and 1, where linear interpolation stays inside and the cubic kernel overshoots."""
    ends = np.array([[0.0], [1.0]])
    assert resize(ends, (2, 1, 1), (4, 1, 1))[:, 0].tolist() == [0.0, 0.25, 0.75, 1.0]
    expected = [-0.10546875, 0.2265625, 0.7734375, 1.10546875]
    for new_grid, grid in (((1, 4, 1), (1, 2, 1)), ((1, 1, 4), (1, 1, 2))):
        np.testing.assert_allclose(resize(ends, grid, new_grid)[:, 0], expected)


@pytest.mark.clause("POS-3")
def test_a_table_of_equal_rows_stays_one():
    """Check that the weights of each new place sum to 1, also when shrinking without antialiasing."""
    table = np.full((24, 2), 0.3)
    np.testing.assert_allclose(resize(table, (2, 3, 4), (5, 2, 7)), 0.3)


@pytest.mark.clause("POS-3")
def test_a_sinusoid_table_resizes_in_its_own_dtype():
    table = sinusoid(24, 8)
    got = resize(table, (2, 3, 4), (2, 6, 8))
    assert got.dtype == np.float32
    expected = resize_positions(table, (2, 3, 4), (2, 6, 8))
    np.testing.assert_array_equal(got, expected.astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "grid", "new_grid", "message"),
    [
        ((25, 2), (2, 3, 4), (2, 3, 5), r"here \(24, d\). Received: shape=\(25, 2\)"),
        ((2, 3, 4, 2), (2, 3, 4), (2, 3, 5), r"Received: shape=\(2, 3, 4, 2\)"),
        ((24, 2), (2, 3, 4), (0, 3, 4), r"three positive integers .* new_grid=\(0, 3, 4\)"),
    ],
)
def test_tables_that_do_not_fit_are_refused(shape, grid, new_grid, message):
    with pytest.raises(ValueError, match=message):
        resize(np.zeros(shape), grid, new_grid)
