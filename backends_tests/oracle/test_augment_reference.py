"""Tests of the oracle's augmentation and mixing against manual calculations and torch's interpolation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backends_tests.compare import assert_close
from spec import augment_reference as augment
from spec import mix_reference

clause = pytest.mark.clause


# The clip ----------------------------------------------------------------------------------------


@clause("AUG-11")
def test_clips_by_hand():
    """AUG-11: Space 64 frames over 15 gaps by 4.27; take two of ten frames and repeat the last one."""
    positions = augment.clip_positions(300, 16, 4, 100)
    assert (positions - 100).tolist() == [
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
    assert augment.clip_positions(10, 4, 4, 0).tolist() == [0, 9, 9, 9]
    assert augment.clip_positions(13, 4, 4, 0).tolist() == [0, 6, 12, 12]
    assert augment.clip_positions(5, 3, 4, 0).tolist() == [0, 4, 4]
    assert augment.clip_positions(16, 4, 4, 0).tolist() == [0, 5, 10, 15]
    assert augment.clip_positions(30, 1, 4, 7).tolist() == [7]


# The crop ----------------------------------------------------------------------------------------


@clause("AUG-2")
def test_crops_by_hand():
    """AUG-2: Crop half of 256 x 340: as a square 208.6 pixels wide; at twice the width, 295 x 147.5."""
    assert augment.crop_size(256, 340, [(0.5, 0.0)]) == (209, 209)
    assert augment.crop_size(256, 340, [(0.5, math.log(2))]) == (148, 295)
    assert augment.crop_box(256, 340, [(0.5, 0.0)], (131, 47)) == (131, 47, 340, 256)
    assert augment.crop_size(5, 5, [(0.25, 0.0)]) == (2, 2)  # 2.5 rounds to the even neighbour
    assert augment.crop_size(1, 1, [(0.2, 0.0)]) is None  # .45 is less than a pixel


@clause("AUG-2", "AUG-3")
def test_the_first_crop_that_fits_is_taken_within_ten_tries():
    """AUG-2: Reject squares with the area of a whole wide frame, as they are too high for it."""
    too_high, fits = (1.0, 0.0), (0.1, 0.0)
    assert augment.crop_size(100, 200, [too_high, fits, (0.2, 0.0)]) == (45, 45)
    assert augment.crop_size(100, 200, [too_high] * 9 + [fits]) == (45, 45)
    assert augment.crop_size(100, 200, [too_high] * 10 + [fits]) is None


@clause("AUG-3")
def test_otherwise_the_middle_is_taken():
    """AUG-3: Crop to 1.3333 x 100 = 133 wide, or 101 / .75 = 135 high; keep a frame of 1.2 to 1."""
    failed = [(1.0, 3.0)] * 10
    assert augment.crop_box(100, 200, failed, ()) == (33, 0, 166, 100)
    assert augment.crop_box(200, 101, failed, ()) == (0, 32, 101, 167)
    assert augment.crop_box(100, 120, failed, ()) == (0, 0, 120, 100)


@clause("AUG-4")
@pytest.mark.parametrize("size", [(9, 13), (3, 2), (5, 7), (1, 20)])
def test_torch_interpolates_to_the_same_crop(size):
    """AUG-4: Interpolate only the crop, in mode bilinear with align_corners=False."""
    torch = pytest.importorskip("torch")
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 11, 3), np.uint8)
    crop = torch.tensor(frames[:, 2:7, 1:8] / 255).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(crop, size=size, mode="bilinear")
    resized = augment.resize_crop(frames, (1, 2, 8, 7), size)
    assert_close(resized, expected.permute(0, 2, 3, 1), "float64")


# RandAugment -------------------------------------------------------------------------------------


@clause("AUG-7")
@pytest.mark.parametrize(
    ("operations", "at_0", "at_7", "at_7_backwards", "at_10"),
    [
        (("AutoContrast", "Equalize", "Invert"), None, None, None, None),
        (("Posterize",), 4, 2, 2, 0),
        (("Solarize",), 256, 77, 77, 0),
        (("SolarizeAdd",), 0, 77, 77, 110),
        (("Color", "Contrast", "Brightness", "Sharpness"), 1, 1.63, 0.37, 1.9),
        (("Rotate",), 0, 21, -21, 30),
        (("ShearX", "ShearY"), 0, 0.21, -0.21, 0.3),
        (("TranslateXRel", "TranslateYRel"), 0, 0.315, -0.315, 0.45),
    ],
)
def test_arguments_by_hand(operations, at_0, at_7, at_7_backwards, at_10):
    """AUG-7: Change nothing at 0, except when posterising; solarising inverts nothing below 256."""
    for operation in operations:
        assert operation in augment.OPERATIONS
        told = [augment.argument(operation, m, s) for m, s in ((0, 1), (7, 1), (7, -1), (10, 1))]
        expected = [at_0, at_7, at_7_backwards, at_10]
        if at_0 is None:
            assert told == expected
        else:
            assert told == pytest.approx(expected)
            assert [type(t) for t in told[:1]] in ([int], [float])


def row(*values):
    """Return a frame of one row, equal in all channels."""
    return np.array(values, np.uint8)[None, :, None].repeat(3, -1)


@clause("AUG-7")
@pytest.mark.parametrize(
    ("operation", "told", "frame", "expected"),
    [
        ("Invert", None, row(0, 1, 200, 255), row(255, 254, 55, 0)),
        ("Posterize", 2, row(0, 63, 64, 200, 255), row(0, 0, 64, 192, 192)),
        ("Posterize", 0, row(0, 255), row(0, 0)),
        ("Solarize", 77, row(0, 76, 77, 255), row(0, 76, 178, 0)),
        ("Solarize", 256, row(0, 255), row(0, 255)),
        ("SolarizeAdd", 77, row(0, 127, 128, 255), row(77, 204, 128, 255)),
        ("SolarizeAdd", 110, row(127), row(237)),
        ("AutoContrast", None, row(10, 20, 61), row(0, 50, 255)),
        ("AutoContrast", None, row(9, 9), row(9, 9)),
        ("Equalize", None, row(*[7] * 255, *[9] * 255, 30), row(*[0] * 255, *[128] * 255, 255)),
        ("Equalize", None, row(7, 9), row(7, 9)),
        ("Brightness", 1.5, row(0, 10, 200), row(0, 15, 255)),
        ("Brightness", 0.5, row(0, 11, 200), row(0, 5, 100)),
        ("Contrast", 0.5, row(0, 100), row(25, 75)),
        ("Contrast", 1.5, row(0, 100), row(0, 125)),
        ("Color", 0.37, row(3, 200), row(3, 200)),
        ("Sharpness", 0.37, np.full((5, 6, 3), 8, "u1"), np.full((5, 6, 3), 8, "u1")),
    ],
)
def test_changes_of_a_frame_by_hand(operation, told, frame, expected):
    """AUG-7: Check levels on both sides of each threshold."""
    changed = augment.changed(frame, operation, told)
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(changed, expected)


@clause("AUG-7")
def test_channels_have_statistics_of_their_own_but_one_grey():
    """AUG-7: Check by hand: the brightness of (100, 0, 0) is 29.9."""
    frame = np.array([[[10, 0, 7], [27, 51, 7]]], np.uint8)
    assert augment.changed(frame, "AutoContrast", None)[0].T.tolist() == [
        [0, 255],
        [0, 255],
        [7] * 2,
    ]
    red = np.array([[[100, 0, 0]]], np.uint8)
    assert augment.changed(red, "Color", 0.0).tolist() == [[[30, 30, 30]]]
    assert augment.changed(red, "Color", 0.5).tolist() == [[[65, 15, 15]]]
    assert augment.changed(red, "Contrast", 0.0).tolist() == [[[30, 30, 30]]]


@clause("AUG-7")
def test_sharpness_smooths_the_inside_alone():
    """AUG-7: Smooth a dot of 130, which counts five of thirteen times at its place and once next to it."""
    frame = np.zeros((5, 5, 3), np.uint8)
    frame[2, 2] = 130
    smoothed = augment.changed(frame, "Sharpness", 0.0)[..., 0]
    assert smoothed[1:4, 1:4].tolist() == [[10, 10, 10], [10, 50, 10], [10, 10, 10]]
    frame[0, 0] = 130
    assert augment.changed(frame, "Sharpness", 0.0)[0, 0, 0] == 130
    assert augment.changed(frame, "Sharpness", 2.0)[2, 2, 0] == 210 - 10 + 10


NOISE = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)


@clause("AUG-8")
def test_whole_pixels_move_unchanged():
    """AUG-8: Turn by halves and quarters, and shift by whole pixels; the outside is grey."""
    grey = np.full((6, 6, 3), 128)
    for told, expected in ((180.0, NOISE[::-1, ::-1]), (90.0, np.rot90(NOISE)), (0.0, NOISE)):
        np.testing.assert_array_equal(augment.changed(NOISE, "Rotate", told), expected)
    left = augment.changed(NOISE, "TranslateXRel", 1 / 3)
    np.testing.assert_array_equal(left[:, :4], NOISE[:, 2:])
    np.testing.assert_array_equal(left[:, 4:], grey[:, 4:])
    down = augment.changed(NOISE, "TranslateYRel", -1 / 3)
    np.testing.assert_array_equal(down[2:], NOISE[:4])
    np.testing.assert_array_equal(down[:2], grey[:2])
    # At slope 2 the centre of row y, y + 1/2, comes from 2 y + 1 pixels to the right.
    sheared = augment.changed(NOISE, "ShearX", 2.0)
    for y in range(3):
        np.testing.assert_array_equal(sheared[y, : 5 - 2 * y], NOISE[y, 2 * y + 1 :])
    np.testing.assert_array_equal(
        augment.changed(NOISE.transpose(1, 0, 2), "ShearY", 2.0), sheared.transpose(1, 0, 2)
    )


@clause("AUG-8")
def test_between_pixels_by_hand():
    """AUG-8: Interpolate half-way: a = -1 weights neighbours 5/8, the next -1/8; edges repeat."""
    changed = augment.changed(row(0, 0, 80, 160, 0, 0, 0, 0), "TranslateXRel", 0.5 / 8)
    # 50 - 20, 50 + 100, 100 - 10. Values below 0 become 0. The last one's source is on the edge: outside.
    between = [0, 30, 150, 90, 0, 0, 0, 128]
    assert changed[0, :, 0].tolist() == between
    edge = augment.changed(row(80, 0, 0, 0), "TranslateXRel", -0.5 / 4)
    assert edge[0, :, 0].tolist() == [90, 40, 0, 0]  # 80 x (5/8 + 5/8 - 1/8), 80 x (5/8 - 1/8)


# Erasing -----------------------------------------------------------------------------------------


@clause("AUG-9")
def test_erased_regions_by_hand():
    """AUG-9: Erase a quarter of 20 x 20; the ratio is height to width, each side below the crop's."""
    assert augment.erased_box(20, 20, [(0.25, 0.0)], (3, 10)) == (3, 10, 13, 20)
    assert augment.erased_box(20, 20, [(0.25, math.log(2))], (0, 1)) == (0, 1, 7, 15)
    assert augment.erased_box(20, 20, [(0.5, math.log(2)), (0.25, 0.0)], (0, 0)) == (0, 0, 10, 10)
    assert augment.erased_box(20, 20, [(1.0, 0.0)] * 99 + [(0.01, 0.0)], (0, 0)) == (0, 0, 2, 2)
    assert augment.erased_box(20, 20, [(1.0, 0.0)] * 100 + [(0.01, 0.0)], (0, 0)) is None


@clause("AUG-10")
def test_normalised_an_erased_region_is_its_noise():
    """AUG-10: Check that the normalised region is its noise, and that nothing else changes."""
    generator = np.random.default_rng(0)
    clip, noise = generator.random((2, 6, 7, 3)), generator.standard_normal((2, 3, 2, 3))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    erased = augment.erase(clip, (4, 1, 6, 4), noise, mean, std)
    normalised = (erased - mean) / std
    assert_close(normalised[:, 1:4, 4:6], noise, "float64")
    erased[:, 1:4, 4:6] = clip[:, 1:4, 4:6]
    np.testing.assert_array_equal(erased, clip)


# Mixing ------------------------------------------------------------------------------------------


@clause("MIX-1")
def test_targets_by_hand():
    """MIX-1: Smooth four classes by .1: .025 each, and .925 at the label."""
    same = mix_reference.soft_targets([2, 0], 4, 0.1, [1.0, 1.0])
    np.testing.assert_allclose(same, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    mixed = mix_reference.soft_targets([2, 0], 4, 0.1, [0.75, 0.25])
    np.testing.assert_allclose(mixed, [[0.25, 0.025, 0.7, 0.025]] * 2)
    np.testing.assert_array_equal(
        mix_reference.soft_targets([1, 1], 2, 0.0, [0.3, 0.3]), [[0, 1]] * 2
    )


@clause("MIX-3", "AUG-1")
def test_mixing_commutes_with_normalisation():
    """MIX-3: Mix before normalising, unlike upstream; a mean whose weights sum to 1 is unaffected."""
    generator = np.random.default_rng(0)
    videos = generator.random((4, 2, 5, 6, 3))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    choices = [(0.3, None), (0.8, (1, 0, 4, 3)), (0.6, None), (1.0, None)]
    ours = (mix_reference.mixed_videos(videos, choices) - mean) / std
    upstream = mix_reference.mixed_videos((videos - mean) / std, choices)
    assert_close(ours, upstream, "float64")
    np.testing.assert_allclose(
        mix_reference.mixed_videos(videos, choices)[0], 0.3 * videos[0] + 0.7 * videos[3]
    )


@clause("MIX-4")
def test_boxes_by_hand():
    """MIX-4: Halve each side for a ratio of .75; at a corner, a quarter of the box is left."""
    assert mix_reference.cutmix_box(224, 224, 0.75, (112, 112)) == (56, 56, 168, 168)
    assert mix_reference.cutmix_ratio(224, 224, (56, 56, 168, 168)) == 0.75
    corner = mix_reference.cutmix_box(224, 224, 0.75, (0, 223))
    assert corner == (0, 223 - 56, 56, 224)
    assert mix_reference.cutmix_ratio(224, 224, corner) == 1 - 56 * 57 / 224**2
    # 7.07 x 14.1 pixels of 10 x 20: 7 and 14, with halves of 3 and 7.
    assert mix_reference.cutmix_box(10, 20, 0.5, (10, 5)) == (3, 2, 17, 8)
    assert mix_reference.cutmix_box(10, 20, 1.0, (10, 5)) == (10, 5, 10, 5)
    assert mix_reference.cutmix_ratio(10, 20, (10, 5, 10, 5)) == 1


@clause("MIX-4")
def test_a_box_is_the_others_in_every_frame():
    """MIX-4: Fill rows 1 and 2, columns 0 to 2 from the other clip; the second clip has no box."""
    videos = np.zeros((2, 3, 4, 5, 1))
    videos[1] = 1
    mixed = mix_reference.mixed_videos(videos, [(0.7, (0, 1, 3, 3)), (1.0, None)])
    expected = np.zeros((4, 5, 1))
    expected[1:3, :3] = 1
    np.testing.assert_array_equal(mixed[0], np.stack([expected] * 3))
    np.testing.assert_array_equal(mixed[1], videos[1])


@clause("MIX-2", "MIX-5")
def test_a_batch_shares_one_choice():
    """MIX-5: Share a choice across the batch, which holds pairs."""
    choice = (0.5, None)
    assert mix_reference.choices_of_clips(choice, 4) == [choice] * 4
    with pytest.raises(ValueError, match="Received: 3 clips"):
        mix_reference.choices_of_clips(choice, 3)
