"""Tests of masks against the clauses, and of running cells against the oracle's pattern."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backends_tests.chi_square import assert_uniform
from backends_tests.profiles import examples
from spec import masks_reference
from vmae_keras import masks

KINDS = ["tube", "random", "frame", "agnostic"]
grids = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
ratios = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**32 - 1)


def draw(kind, grid, ratio, seed):
    """Draw (visible, masked), or None if the oracle says that the ratio leaves one of them empty."""
    try:
        expected = getattr(masks_reference, kind)(grid, ratio, np.random.default_rng(seed))
    except ValueError:
        with pytest.raises(ValueError, match="`ratio` must leave"):
            masks.MASKS[kind](grid, ratio, np.random.default_rng(seed))
        return None, expected_counts(None)
    got = masks.MASKS[kind](grid, ratio, np.random.default_rng(seed))
    return got, expected_counts(expected)


def expected_counts(ids):
    return ids and tuple(len(part) for part in ids)


@pytest.mark.clause("MASK-1", "MASK-3", "MASK-5", "MASK-6")
@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(grid=grids, ratio=ratios, seed=seeds)
def test_ids_partition_the_grid_with_the_static_count(kind, grid, ratio, seed):
    got, counts = draw(kind, grid, ratio, seed)
    assume(got is not None)
    visible, masked = got
    assert (len(visible), len(masked)) == counts
    for ids in got:
        assert ids.dtype == np.int32 and (np.diff(ids) > 0).all()
    np.testing.assert_array_equal(np.sort(np.concatenate(got)), np.arange(np.prod(grid)))
    again = masks.MASKS[kind](grid, ratio, np.random.default_rng(seed))
    np.testing.assert_array_equal(again[0], visible)


@pytest.mark.clause("MASK-2")
@examples(60)
@given(grid=grids, ratio=ratios, seed=seeds)
def test_tubes_hide_the_same_places_in_every_slot(grid, ratio, seed):
    got, _ = draw("tube", grid, ratio, seed)
    assume(got is not None)
    visible = got[0].reshape(grid[0], -1) - np.arange(grid[0])[:, None] * grid[1] * grid[2]
    assert (visible == visible[0]).all()


@pytest.mark.clause("MASK-4")
@examples(60)
@given(grid=grids, ratio=ratios, seed=seeds)
def test_frames_are_hidden_whole(grid, ratio, seed):
    got, _ = draw("frame", grid, ratio, seed)
    assume(got is not None)
    hidden = np.isin(np.arange(np.prod(grid)), got[1]).reshape(grid[0], -1)
    assert (hidden == hidden[:, :1]).all()


@pytest.mark.clause("MASK-6")
@pytest.mark.parametrize(
    ("kind", "grid", "unit", "units", "hidden"),
    [
        ("tube", (2, 3, 3), lambda ids: ids % 9, 9, 4),
        ("random", (2, 2, 2), lambda ids: ids, 8, 4),
        ("frame", (5, 1, 2), lambda ids: ids // 2, 5, 2),
        ("agnostic", (2, 2, 2), lambda ids: ids, 8, 4),
    ],
    ids=KINDS,
)
def test_every_mask_is_equally_likely(kind, grid, unit, units, hidden):
    """Check sets of places. Masks of blocks also hide each place equally often, but not all sets."""
    cells = list(itertools.combinations(range(units), hidden))
    generator = np.random.default_rng(0)
    drawn = [masks.MASKS[kind](grid, 0.5, generator)[1] for _ in range(20 * len(cells))]
    assert_uniform((tuple(sorted({*unit(ids).tolist()})) for ids in drawn), cells)


@pytest.mark.clause("MASK-1")
@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5, 0.001])
@pytest.mark.parametrize("kind", KINDS)
def test_ratios_that_leave_nothing_are_refused(kind, ratio):
    if kind == "agnostic" and ratio == 0.001:
        return  # rounds up, so one token is hidden
    with pytest.raises(ValueError, match=r"Received: ratio="):
        masks.MASKS[kind]((2, 3, 3), ratio, np.random.default_rng(0))


@pytest.mark.clause("CELL-1", "CELL-2", "CELL-3", "CELL-4")
@examples(150)
@given(grid=grids, ratio=st.sampled_from([0.25, 0.3, 0.5, 0.75, 0.9]), seed=seeds)
def test_running_cells_are_one_of_the_four_patterns(grid, ratio, seed):
    patterns = [
        set(np.flatnonzero(masks_reference.running_cell_pattern(grid, ratio, pointer)))
        for pointer in range(4)
    ]
    count = masks_reference.running_cell_count(grid, ratio)
    if count == 0:
        with pytest.raises(ValueError, match="too small for running cells"):
            masks.running_cell(grid, ratio, np.random.default_rng(seed))
        return
    decoded = masks.running_cell(grid, ratio, np.random.default_rng(seed))
    assert decoded.dtype == np.int32 and (np.diff(decoded) > 0).all()
    assert len(decoded) == count
    assert any(set(decoded.tolist()) <= pattern for pattern in patterns)
    if grid[1] % 2 == grid[2] % 2 == 0:
        assert any(set(decoded.tolist()) == pattern for pattern in patterns)


@pytest.mark.clause("CELL-1")
@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0, -1.0])
def test_cells_that_hide_nothing_or_all_are_refused(ratio):
    with pytest.raises(ValueError, match=r"Use 0.25, 0.5 or 0.75"):
        masks.running_cell((4, 4, 4), ratio, np.random.default_rng(0))


@pytest.mark.clause("DUAL-1", "DUAL-2", "DUAL-3", "DUAL-4")
@pytest.mark.parametrize(("grid", "hidden"), [((8, 14, 14), 704), ((8, 16, 16), 920)])
def test_pretraining_masks_have_the_published_counts(grid, hidden):
    generator = np.random.default_rng(1)
    v1 = masks.pretraining(grid, generator)
    assert v1.keys() == {"visible", "decoded"}
    both = np.sort(np.concatenate(list(v1.values())))
    np.testing.assert_array_equal(both, np.arange(np.prod(grid)))
    for _ in range(20):
        v2 = masks.pretraining(grid, generator, decoder_ratio=0.5)
        assert len(v2["visible"]) == len(v1["visible"])
        assert len(v2["decoded"]) == np.prod(grid) // 2
        expected = ~np.isin(v2["decoded"], v2["visible"])
        np.testing.assert_array_equal(v2["weight"], expected)
        assert v2["weight"].dtype == np.float32 and v2["weight"].sum() == hidden
    assert masks.count_tokens(grid) == (len(v1["visible"]), len(v1["decoded"]))
    assert masks.count_tokens(grid, decoder_ratio=0.5) == (len(v2["visible"]), len(v2["decoded"]))


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="`kind` must be one of tube, random, frame, agnostic"):
        masks.pretraining((2, 2, 2), np.random.default_rng(0), kind="block")
