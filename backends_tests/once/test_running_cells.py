"""What is drawn of running cells: the phase for every clip, and the surplus on odd grids."""

import numpy as np
import pytest

from spec import masks_reference
from vmae_keras import masks


@pytest.mark.clause("CELL-3", "DUAL-2")
def test_every_clip_draws_its_phase():
    """Independently of the encoder's mask: each of its four meets each of the four phases."""
    generator = np.random.default_rng(0)
    drawn = [
        masks.pretraining((1, 2, 2), generator, ratio=0.25, decoder_ratio=0.25) for _ in range(300)
    ]
    assert len({(*ids["visible"], *ids["decoded"]) for ids in drawn}) == 4 * 4


@pytest.mark.clause("CELL-4")
@pytest.mark.parametrize("grid", [(1, 3, 3), (2, 3, 4), (3, 5, 3)])
def test_the_surplus_is_drawn(grid):
    """No token of a phase is always the one that is dropped."""
    patterns = [masks_reference.running_cell_pattern(grid, 0.5, pointer) for pointer in range(4)]
    generator = np.random.default_rng(0)
    decoded = {tuple(masks.running_cell(grid, 0.5, generator)) for _ in range(1000)}
    for pattern in patterns:
        ids = set(np.flatnonzero(pattern))
        assert set().union(*(draw for draw in decoded if ids.issuperset(draw))) == ids
