"""Tests of the oracle's masks: published counts and patterns, partitions, and randomness."""

from __future__ import annotations

import numpy as np
import pytest

from spec import masks_reference as masks
from spec import reference

clause = pytest.mark.clause
GRID, GIANT_GRID = (8, 14, 14), (8, 16, 16)


@clause("MASK-1", "MASK-2", "MASK-3", "MASK-4", "MASK-5")
@pytest.mark.parametrize(
    ("draw", "grid", "ratio", "masked", "visible"),
    [
        (masks.tube, GRID, 0.9, 1408, 160),
        (masks.tube, GRID, 0.75, 1176, 392),
        (masks.tube, GIANT_GRID, 0.9, 1840, 208),
        (masks.tube, (2, 3, 15), 0.6, 54, 36),  # (.6 * 3) * 15 would truncate to 26 per slot
        (masks.random, GRID, 0.9, 1411, 157),
        (masks.frame, GRID, 0.9, 1372, 196),
        (masks.agnostic, GRID, 0.9, 1412, 156),
        (masks.random, GIANT_GRID, 0.9, 1843, 205),
        (masks.agnostic, GIANT_GRID, 0.9, 1844, 204),
    ],
)
def test_mask_counts(draw, grid, ratio, masked, visible):
    """MASK-1 to MASK-5: Compare with the published counts; all ids must form a sorted partition."""
    seen, hidden = draw(grid, ratio, np.random.default_rng(3))
    assert (len(hidden), len(seen)) == (masked, visible)
    assert seen.dtype == hidden.dtype == np.int32
    assert all((np.diff(ids) > 0).all() for ids in (seen, hidden))
    np.testing.assert_array_equal(np.sort(np.r_[seen, hidden]), np.arange(np.prod(grid)))


@clause("MASK-2", "MASK-4")
def test_tubes_repeat_over_time_and_frames_are_whole():
    """MASK-2, MASK-4: Check that tubes repeat over time and frames are masked whole."""
    for draw, axis in ((masks.tube, 0), (masks.frame, (1, 2))):
        hidden = np.zeros(GRID, bool)
        hidden.flat[draw(GRID, 0.75, np.random.default_rng(4))[1]] = True
        assert (hidden.all(axis) == hidden.any(axis)).all()
        assert hidden.any() and not hidden.all()


@clause("MASK-1", "MASK-6", "CELL-1")
def test_masks_follow_their_generator_and_refuse_empty_sides():
    """MASK-1, MASK-6, CELL-1: Check that masks follow the generator, and empty sides are refused."""
    for draw in (masks.tube, masks.random, masks.frame, masks.agnostic):
        first, again, other = (draw(GRID, 0.5, np.random.default_rng(s))[0] for s in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
        for ratio in (0.0, 1.0, 1.5):
            with pytest.raises(ValueError, match="at least one visible"):
                draw(GRID, ratio, np.random.default_rng(0))
    with pytest.raises(ValueError, match="masks 0 of 4"):
        masks.tube((1, 2, 2), 0.2, np.random.default_rng(0))
    for ratio in (0.2, 1.0):
        with pytest.raises(ValueError, match="running cell"):
            masks.running_cell(GRID, ratio, np.random.default_rng(0))


@clause("CELL-1", "CELL-2")
def test_the_published_running_cell():
    """CELL-1, CELL-2: Check ratio .5 with pointer 0; pointer 1 starts the same cycle one slot later."""
    cycle = [[[1, 0], [0, 1]], [[0, 0], [1, 1]], [[0, 1], [1, 0]], [[1, 1], [0, 0]]]
    hidden = ~masks.running_cell_pattern((8, 4, 6), 0.5, 0)
    np.testing.assert_array_equal(hidden, np.tile(np.array(cycle + cycle, bool), (1, 2, 3)))
    np.testing.assert_array_equal(
        ~masks.running_cell_pattern((7, 4, 6), 0.5, 1), np.roll(hidden, -1, axis=0)[:7]
    )


@clause("CELL-1", "CELL-3")
@pytest.mark.parametrize(("ratio", "count"), [(0.25, 1176), (0.5, 784), (0.6, 784), (0.9, 392)])
def test_running_cells_decode_a_static_number_and_use_every_pointer(ratio, count):
    """CELL-1, CELL-3: Check that int(4 ratio) of 4 are hidden and every pointer occurs."""
    patterns = [
        np.flatnonzero(masks.running_cell_pattern(GRID, ratio, pointer)) for pointer in range(4)
    ]
    drawn = set()
    for seed in range(40):
        decoded = masks.running_cell(GRID, ratio, np.random.default_rng(seed))
        assert len(decoded) == count
        drawn |= {p for p in range(4) if np.array_equal(decoded, patterns[p])}
    assert drawn == {0, 1, 2, 3}


@clause("CELL-4")
def test_odd_grids_drop_a_surplus_at_random():
    """CELL-4: Keep the smallest count over the pointers, without ids from outside a pattern."""
    grid, by_pointer = (3, 5, 5), {}
    patterns = [set(np.flatnonzero(masks.running_cell_pattern(grid, 0.5, p))) for p in range(4)]
    counts = [len(pattern) for pattern in patterns]
    assert len(set(counts)) > 1 and masks.running_cell_count(grid, 0.5) == min(counts)
    for seed in range(60):
        decoded = set(masks.running_cell(grid, 0.5, np.random.default_rng(seed)))
        pointers = [p for p in range(4) if decoded <= patterns[p]]
        assert len(decoded) == min(counts) and pointers
        for pointer in pointers:
            by_pointer.setdefault(pointer, set()).add(frozenset(decoded))
    largest = int(np.argmax(counts))
    assert len(by_pointer[largest]) > 1, "the surplus must not always be the same ids"


@clause("DUAL-1", "DUAL-2", "DUAL-3", "DUAL-4")
@pytest.mark.parametrize(
    ("grid", "decoder_ratio", "masked_decoded", "decoded", "length", "length_v1"),
    [
        (GRID, 0.5, 704, 784, 944, 1568),
        (GIANT_GRID, 0.5, 920, 1024, 1232, 2048),
        (GRID, 0.25, 1056, 1176, 1336, 1568),
        (GRID, 0.75, 352, 392, 552, 1568),
    ],
)
def test_dual_masking_is_static(grid, decoder_ratio, masked_decoded, decoded, length, length_v1):
    """DUAL-1 to DUAL-4: Check lengths, the constant overlap, and the weight, computed in two ways."""
    plain = masks.pretraining(grid, np.random.default_rng(0))
    assert set(plain) == {"visible", "decoded"}
    assert len(plain["visible"]) + len(plain["decoded"]) == length_v1
    for seed in range(30):
        ids = masks.pretraining(grid, np.random.default_rng(seed), decoder_ratio=decoder_ratio)
        assert ids["weight"].dtype == np.float32
        assert ids["weight"].sum() == masked_decoded and len(ids["decoded"]) == decoded
        assert len(ids["visible"]) + len(ids["decoded"]) == length
        again = reference.decoded_weight(ids["visible"][None], ids["decoded"][None])
        np.testing.assert_array_equal(again[0], ids["weight"])
