"""Tests of the oracle's views and resized positions: manual calculations, official procedures, torch."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from backends_tests.compare import assert_close
from spec import evaluation_reference as evaluation
from spec import position_reference
from spec.position_reference import resize_positions

clause = pytest.mark.clause


# Positions on another grid -----------------------------------------------------------------------

GRIDS = {
    "larger": ((2, 3, 4), (2, 6, 7)),
    "smaller": ((2, 7, 6), (2, 4, 3)),
    "larger and smaller": ((2, 5, 4), (2, 3, 9)),
    "longer": ((3, 2, 2), (8, 2, 2)),
    "shorter": ((8, 2, 2), (3, 2, 2)),
    "all three": ((4, 3, 5), (7, 5, 4)),
    "from one": ((1, 1, 2), (3, 4, 2)),
}


@clause("POS-3")
@pytest.mark.parametrize(("grid", "new_grid"), GRIDS.values(), ids=GRIDS)
def test_torch_interpolates_to_the_same_positions(grid, new_grid):
    """POS-3: Resize bicubically in space, then linearly in time, align_corners=False; measured 8.9e-15."""
    torch = pytest.importorskip("torch")
    interpolate = torch.nn.functional.interpolate
    table = np.random.default_rng(0).standard_normal((math.prod(grid), 6))
    (t, _, _), (_, h, w) = grid, new_grid
    volume = torch.tensor(table).reshape(*grid, 6).permute(0, 3, 1, 2)  # (t, d, h, w)
    volume = interpolate(volume, size=(h, w), mode="bicubic", align_corners=False)
    lines = volume.permute(2, 3, 1, 0).reshape(h * w, 6, t)
    lines = interpolate(lines, size=new_grid[0], mode="linear", align_corners=False)
    expected = lines.permute(2, 0, 1).reshape(-1, 6).numpy()
    resized = resize_positions(table, grid, new_grid)
    assert resized.shape == (math.prod(new_grid), 6)
    assert_close(resized, expected, "float64")


@clause("POS-3")
def test_a_row_and_a_clip_by_hand():
    """POS-3: Double a row: sources at -1/4, 1/4, 3/4, 5/4, weights by Keys' formula with a = -.75."""
    line = resize_positions([[0.0], [4.0]], (2, 1, 1), (4, 1, 1))
    assert line.ravel().tolist() == [0, 1, 3, 4]
    at_3_4, at_5_4, at_7_4 = 67 / 256, -27 / 256, -9 / 256  # the kernel; it is 225 / 256 at 1/4
    first = at_5_4  # neighbours -2, -1, 0 and 1 of -1/4; all but 1 are the edge, 0
    second = at_3_4 + at_7_4  # neighbours -1, 0, 1 and 2 of 1/4; 2 is the edge, 1
    for grid, new_grid in (((1, 2, 1), (1, 4, 1)), ((1, 1, 2), (1, 1, 4))):
        row = resize_positions([[0.0], [1.0]], grid, new_grid).ravel()
        assert row.tolist() == [first, second, 1 - second, 1 - first]


@clause("POS-3", "POS-1")
def test_an_axis_of_unchanged_length_is_left_to_the_bit():
    """POS-3: Keep a table exactly that needs no resizing; rows do not affect each other."""
    table = position_reference.sinusoid_positions(24, 8)
    for values in (table, -table):  # zeros of both signs
        same = resize_positions(values, (2, 3, 4), (2, 3, 4))
        assert same.tobytes() == values.tobytes()
    wide = resize_positions(table, (2, 3, 4), (2, 3, 8)).reshape(2, 3, 8, 8)
    for slot, row in np.ndindex(2, 3):
        alone = table.reshape(2, 3, 4, 8)[slot, row]
        np.testing.assert_array_equal(
            wide[slot, row], resize_positions(alone, (1, 1, 4), (1, 1, 8))
        )


@clause("POS-3")
def test_a_constant_stays_a_constant():
    """POS-3: Check that the weights of the neighbours sum to one, at the edges too."""
    resized = resize_positions(np.full((60, 2), 3.0), (3, 4, 5), (5, 9, 3))
    assert_close(resized, np.full((135, 2), 3.0), "float64")


# Views in time -----------------------------------------------------------------------------------


@clause("EVAL-1")
def test_the_dense_views_of_a_ten_second_video():
    """EVAL-1: Take every 4th of 300 frames: 75 positions, 59 spare. Clips start at 0, 14, 29, 44, 59."""
    views = evaluation.dense_views(300, 16, 4, 5)
    assert views[:, 0].tolist() == [0, 14 * 4, 29 * 4, 44 * 4, 59 * 4]
    assert (np.diff(views, axis=1) == 4).all() and views[-1, -1] == 296
    np.testing.assert_array_equal(evaluation.dense_views(300, 16, 4, 1), [np.arange(29, 45) * 4])


@clause("EVAL-1")
def test_the_dense_views_of_a_short_video():
    """EVAL-1: Repeat the last of the positions, not the video's last frame."""
    views = evaluation.dense_views(10, 6, 4, 3)
    assert views.tolist() == [[0, 4, 8, 8, 8, 8]] * 3
    assert evaluation.dense_views(1, 4, 2, 1).tolist() == [[0, 0, 0, 0]]
    assert evaluation.dense_views(17, 4, 4, 2).tolist() == [[0, 4, 8, 12], [4, 8, 12, 16]]


@clause("EVAL-1")
def test_dense_views_follow_the_official_procedure():
    """EVAL-1: Compare with a padded list and a float step, as in kinetics.py."""
    for count in range(1, 400, 3):
        for stride, clips in ((4, 5), (2, 7), (3, 2)):
            kept = [frame for frame in range(count) if frame % stride == 0]
            kept += [kept[-1]] * (16 - len(kept))
            step = max(1.0 * (len(kept) - 16) / (clips - 1), 0)
            expected = [kept[int(j * step) : int(j * step) + 16] for j in range(clips)]
            np.testing.assert_array_equal(
                evaluation.dense_views(count, 16, stride, clips), expected
            )


@clause("EVAL-1", "EVAL-3")
def test_the_quotient_comes_before_the_product():
    """EVAL-1, EVAL-3: Divide first, as upstream does: 7 (61 / 7) is slightly less than 61 in float64."""
    views = evaluation.dense_views(16 + 61, 16, 1, 8)
    assert views[:, 0].tolist() == [0, 8, 17, 26, 34, 43, 52, 60]
    assert evaluation.view_crops(224, 224 + 61, 224, 8)[-2:] == [(0, 52), (0, 60)]


@clause("EVAL-2")
def test_the_uniform_views_by_hand():
    """EVAL-2: Check segments of two frames, of two and a half, and of less than one."""
    both = evaluation.uniform_views(32, 16, 2)
    np.testing.assert_array_equal(both, [np.arange(0, 32, 2), np.arange(1, 32, 2)])
    assert evaluation.uniform_views(40, 16, 2).tolist() == [
        [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30, 32, 35, 37],
        [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38],
    ]
    assert evaluation.uniform_views(3, 4, 2).tolist() == [[0, 0, 1, 2], [0, 1, 1, 2]]
    with pytest.raises(ValueError, match="clips=3"):
        evaluation.uniform_views(32, 16, 3)


@clause("EVAL-2", "DATA-3")
def test_uniform_views_follow_the_official_procedure():
    """EVAL-2: Sort both clips' positions together and take every second one, as in ssv2.py."""
    for count in range(1, 200):
        tick = count / float(16)
        merged = [int(tick / 2 + tick * i) for i in range(16)] + [int(tick * i) for i in range(16)]
        merged = sorted(merged)
        views = evaluation.uniform_views(count, 16, 2)
        np.testing.assert_array_equal(views, [merged[0::2], merged[1::2]])
        np.testing.assert_array_equal(evaluation.uniform_views(count, 16, 1), views[1:])
        centred = [int((i + 0.5) * count / 16) for i in range(16)]
        np.testing.assert_array_equal(views[1], centred)


# Views in space ----------------------------------------------------------------------------------


@clause("EVAL-3")
def test_the_three_crops_of_a_landscape_and_of_a_portrait():
    """EVAL-3: Resize 320 x 240 to 298 x 224 with 74 pixels spare, and 340 x 256 to 297 x 224."""
    assert evaluation.view_size(240, 320, 224) == (224, 298)
    assert evaluation.view_size(320, 240, 224) == (298, 224)
    assert evaluation.view_size(256, 340, 224) == (224, 297)
    assert evaluation.view_size(100, 100, 224) == (224, 224)
    assert evaluation.view_crops(224, 298, 224, 3) == [(0, 0), (0, 37), (0, 74)]
    assert evaluation.view_crops(298, 224, 224, 3) == [(0, 0), (37, 0), (74, 0)]
    assert evaluation.view_crops(224, 297, 224, 3) == [(0, 0), (0, 36), (0, 73)]
    assert evaluation.view_crops(224, 297, 224, 1) == [(0, 36)]
    assert evaluation.view_crops(224, 224, 224, 3) == [(0, 0)] * 3


@clause("EVAL-5")
def test_rectangular_crops_by_hand():
    """EVAL-5: Scale 320 x 240 by .7 for 224 x 112 (width, height), and by 14 / 15 for 112 x 224."""
    assert evaluation.fitted_size(240, 320, (112, 224)) == (168, 224)
    assert evaluation.fitted_crops(168, 224, (112, 224), 3) == [(0, 0), (28, 0), (56, 0)]
    assert evaluation.fitted_size(240, 320, (224, 112)) == (224, 298)
    assert evaluation.fitted_crops(224, 298, (224, 112), 1) == [(0, 93)]
    assert evaluation.fitted_size(180, 320, (90, 160)) == (90, 160)
    assert evaluation.fitted_crops(90, 160, (90, 160), 2) == [(0, 0)] * 2


@clause("EVAL-3", "EVAL-5")
def test_of_squares_both_clauses_say_the_same():
    """EVAL-5: Check equality with EVAL-3 for H = W."""
    for height, width, size in itertools.product(range(1, 60, 7), range(1, 60, 5), (1, 16, 33)):
        resized = evaluation.view_size(height, width, size)
        assert evaluation.fitted_size(height, width, (size, size)) == resized
        for crops in (1, 2, 3, 8):
            corners = evaluation.view_crops(*resized, size, crops)
            assert evaluation.fitted_crops(*resized, (size, size), crops) == corners


# The views' votes --------------------------------------------------------------------------------


@clause("EVAL-4")
def test_probabilities_are_averaged_not_logits():
    """EVAL-4: Average by hand; one confident view does not outvote two others, as it would with logits."""
    sure, unsure = [math.log(99.0), 0.0], [0.0, math.log(3.0)]
    averaged = evaluation.average_views([sure, unsure, unsure])
    np.testing.assert_allclose(averaged, [(0.99 + 0.25 + 0.25) / 3, (0.01 + 0.75 + 0.75) / 3])
    assert averaged.argmax() == 1 and np.mean([sure, unsure, unsure], 0).argmax() == 0
    np.testing.assert_allclose(evaluation.average_views([[1e4, 0.0], [0.0, 0.0]]), [0.75, 0.25])
