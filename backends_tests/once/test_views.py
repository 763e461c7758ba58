"""Tests of the views of a video: against the oracle, and as properties."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backends_tests.compare import assert_close
from spec import evaluation_reference
from vmae_keras.data.views import (
    average_views,
    dense_views,
    uniform_views,
    view_crops,
    view_size,
)

COUNTS = st.integers(1, 2000)
FRAMES = st.integers(1, 40)
STRIDES = st.integers(1, 12)
CLIPS = st.integers(1, 12)
SIDES = st.integers(1, 800)


@pytest.mark.clause("EVAL-1")
@given(COUNTS, FRAMES, STRIDES, CLIPS)
@example(16 + 61, 16, 1, 8)  # 7 (61 / 7) is less than 61
def test_dense_views_equal_the_oracle(count, frames, stride, clips):
    views = dense_views(count, frames, stride, clips)
    assert views.shape == (clips, frames) and views.dtype == np.int64
    np.testing.assert_array_equal(
        views, evaluation_reference.dense_views(count, frames, stride, clips)
    )


@pytest.mark.clause("EVAL-1")
@given(COUNTS, FRAMES, STRIDES, st.integers(2, 12))
def test_dense_views_reach_from_the_first_to_the_last_position(count, frames, stride, clips):
    """Reach the last position, or the one before it where the division rounds down."""
    views = dense_views(count, frames, stride, clips)
    assert views[0, 0] == 0
    assert count - 2 * stride <= views[-1, -1] < count
    if clips == 5:  # as in the papers; with four the division is exact
        assert count - stride <= views[-1, -1]


@pytest.mark.clause("EVAL-1")
def test_dense_views_of_a_long_and_of_a_short_video():
    assert dense_views(20, 2, 4, 3).tolist() == [[0, 4], [4, 8], [12, 16]]
    assert dense_views(20, 2, 4, 1).tolist() == [[4, 8]]
    assert dense_views(6, 4, 4, 2).tolist() == [[0, 4, 4, 4]] * 2


@pytest.mark.clause("EVAL-2")
@given(COUNTS, FRAMES, st.integers(1, 2))
def test_uniform_views_equal_the_oracle(count, frames, clips):
    views = uniform_views(count, frames, clips)
    assert views.shape == (clips, frames) and views.dtype == np.int64
    assert views.min() >= 0 and views.max() < count
    np.testing.assert_array_equal(views, evaluation_reference.uniform_views(count, frames, clips))


@pytest.mark.clause("EVAL-2")
def test_uniform_views_are_the_starts_and_the_middles():
    assert uniform_views(16, 4, 2).tolist() == [[0, 4, 8, 12], [2, 6, 10, 14]]
    assert uniform_views(16, 4, 1).tolist() == [[2, 6, 10, 14]]


@pytest.mark.clause("EVAL-3")
@given(SIDES, SIDES, st.integers(1, 400), CLIPS)
@example(224, 224 + 61, 224, 8)  # 7 (61 / 7) is less than 61
def test_size_and_crops_equal_the_oracle(height, width, size, crops):
    resized = view_size(height, width, (size, size))
    assert resized == evaluation_reference.view_size(height, width, size)
    assert min(resized) == size
    corners = view_crops(*resized, (size, size), crops)
    assert corners == evaluation_reference.view_crops(*resized, size, crops)
    assert all(0 <= y <= resized[0] - size and 0 <= x <= resized[1] - size for y, x in corners)
    if crops > 1:
        assert corners[0] == (0, 0)
        # Upstream divides first, so rounding may stop one pixel before the end (8 crops of 64370 - 205).
        assert max(resized) - size - max(corners[-1]) in (0, 1)


@pytest.mark.clause("EVAL-3")
def test_crops_lie_along_the_long_side():
    assert view_size(240, 320, (224, 224)) == (224, 298)
    assert view_crops(224, 298, (224, 224), 3) == [(0, 0), (0, 37), (0, 74)]
    assert view_crops(299, 224, (224, 224), 1) == [(37, 0)]


@pytest.mark.clause("EVAL-5")
@given(SIDES, SIDES, st.tuples(st.integers(1, 400), st.integers(1, 400)), CLIPS)
def test_rectangular_crops_equal_the_oracle(height, width, size, crops):
    resized = view_size(height, width, size)
    assert resized == evaluation_reference.fitted_size(height, width, size)
    spare = np.subtract(resized, size)
    assert spare.min() == 0
    corners = view_crops(*resized, size, crops)
    assert corners == evaluation_reference.fitted_crops(*resized, size, crops)
    assert all(0 <= y <= spare[0] and 0 <= x <= spare[1] for y, x in corners)


@pytest.mark.clause("EVAL-5")
def test_rectangular_crops_lie_along_the_side_that_has_room():
    """Check a landscape frame, which has room above and below a crop that is even wider."""
    assert view_size(240, 320, (112, 224)) == (168, 224)
    assert view_crops(168, 224, (112, 224), 3) == [(0, 0), (28, 0), (56, 0)]
    assert view_size(240, 320, (224, 112)) == (224, 298)
    assert view_crops(224, 298, (224, 112), 3) == [(0, 0), (0, 93), (0, 186)]
    assert view_size(180, 320, (90, 160)) == (90, 160)


@pytest.mark.clause("EVAL-4")
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 6), st.integers(1, 9)),
        elements=st.floats(-90, 90, width=32),
    )
)
def test_probabilities_are_averaged(logits):
    got = average_views(logits)
    assert got.shape == logits.shape[1:] and got.dtype == np.float64
    assert got.sum() == pytest.approx(1)
    assert_close(got, evaluation_reference.average_views(logits), "float64")


@pytest.mark.clause("EVAL-4")
def test_one_sure_view_does_not_overrule_the_others():
    """Average probabilities, as averaged logits would let it dominate."""
    logits = np.array([[20.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
    assert logits.mean(0).argmax() == 0
    assert average_views(logits).argmax() == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dense_views(0, 4, 1, 1), "`count` must be at least 1"),
        (lambda: dense_views(9, 4, 1, 0), "`clips` must be at least 1"),
        (lambda: uniform_views(9, 4, 3), "one or two clips of a video. Received: clips=3"),
        (
            lambda: view_crops(10, 20, (8, 8), 3),
            r"must just fit into the frame.*Received: height=10, width=20, size=\(8, 8\)",
        ),
        (lambda: view_crops(8, 20, (8, 24), 3), "must just fit into the frame"),
        (lambda: view_size(10, 20, (0, 8)), "`size` must be at least 1"),
    ],
)
def test_views_that_make_no_sense_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
