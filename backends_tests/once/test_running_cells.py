"""Tests of the draws of running cells: the phase of each clip, and the surplus on odd grids."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

from backends_tests.chi_square import assert_distribution, assert_uniform
from spec import masks_reference
from vmae_keras import masks


def phases(grid, ratio):
    patterns = [masks_reference.running_cell_pattern(grid, ratio, pointer) for pointer in range(4)]
    return [tuple(np.flatnonzero(pattern).tolist()) for pattern in patterns]


@pytest.mark.clause("CELL-3", "DUAL-2")
def test_every_clip_draws_its_phase():
    """Check that the phase is independent of the encoder's mask: four by four phases."""
    grid, ratio = (1, 2, 2), 0.25
    generator = np.random.default_rng(0)
    drawn = [
        masks.pretraining(grid, generator, ratio=ratio, decoder_ratio=ratio) for _ in range(800)
    ]
    found = ((tuple(ids["visible"].tolist()), tuple(ids["decoded"].tolist())) for ids in drawn)
    visible = itertools.combinations(range(4), 3)
    assert_uniform(found, itertools.product(visible, phases(grid, ratio)))


@pytest.mark.clause("CELL-3", "CELL-4")
@pytest.mark.parametrize(("grid", "ratio"), [((1, 3, 3), 0.5), ((2, 3, 3), 0.75)])
def test_the_surplus_is_drawn(grid, ratio):
    """Check that all sets of a phase's tokens are equally likely, of the size of the smallest phase."""
    count = masks_reference.running_cell_count(grid, ratio)
    shares = defaultdict(float)
    for phase in phases(grid, ratio):
        kept = list(itertools.combinations(phase, count))
        for ids in kept:
            shares[ids] += 1 / len(kept) / 4
    generator = np.random.default_rng(0)
    drawn = [masks.running_cell(grid, ratio, generator) for _ in range(1600)]
    assert_distribution((tuple(ids.tolist()) for ids in drawn), shares)
