"""Tests of parts of batches against orders written by hand."""

import pytest

from spec import share_reference


@pytest.mark.clause("SHARD-1", "SHARD-2")
def test_parts_of_eight_by_hand():
    assert share_reference.places(8, 0, 2) == [0, 1, 2, 3]
    assert share_reference.places(8, 3, 4) == [6, 7]
    assert share_reference.mixed_order(8, 0, 1) == [0, 7, 1, 6, 2, 5, 3, 4]
    assert share_reference.mixed_order(8, 1, 2) == [2, 5, 3, 4]
    for refused in (share_reference.places, share_reference.mixed_order):
        with pytest.raises(ValueError, match="do not divide"):
            refused(8, 0, 3)
