"""Tests of crop boxes and resizing."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backends_tests.chi_square import assert_distribution
from vmae_keras.data.crops import centre_crop, luma, multi_scale_crop, resize

PICTURES = st.tuples(st.integers(1, 500), st.integers(1, 500))
TARGETS = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(PICTURES, TARGETS, st.integers(0, 2**32))
def test_every_box_is_inside_the_picture(picture, target, seed):
    drawn = multi_scale_crop(picture, target, np.random.default_rng(seed))
    for left, top, right, bottom in (drawn, centre_crop(picture, target)):
        assert 0 <= left < right <= picture[1]
        assert 0 <= top < bottom <= picture[0]


@pytest.mark.clause("DATA-4", "DATA-5", "MASK-6")
def test_the_official_sizes_and_offsets_are_equally_likely():
    picture, side = (320, 460), 112
    scaled = [320, 280, 240, 211]  # int(320 * scale)
    sizes = {(scaled[i], scaled[j]) for i in range(4) for j in range(4) if abs(i - j) <= 1}
    quarters = {
        (0, 0),
        (0, 4),
        (4, 0),
        (4, 4),
        (2, 2),
        (0, 2),
        (4, 2),
        (2, 0),
        (2, 4),
        (1, 1),
        (1, 3),
        (3, 1),
        (3, 3),
    }
    # If a crop has no room, several offsets coincide.
    boxes = [
        (x * ((460 - w) // 4), y * ((320 - h) // 4), w, h) for h, w in sizes for x, y in quarters
    ]
    shares = {box: count / len(boxes) for box, count in Counter(boxes).items()}
    generator = np.random.default_rng(0)
    drawn = [multi_scale_crop(picture, (side, side), generator) for _ in range(4000)]
    assert_distribution(
        ((left, top, right - left, bottom - top) for left, top, right, bottom in drawn), shares
    )


@pytest.mark.clause("DATA-4")
def test_a_side_close_to_the_target_becomes_the_target_if_there_is_room():
    generator = np.random.default_rng(0)

    def sides(picture, target):
        boxes = [multi_scale_crop(picture, (target, target), generator) for _ in range(300)]
        return {bottom - top for _, top, _, bottom in boxes}

    assert sides((256, 340), 226) == {256, 226, 192, 168}  # 224 is within two pixels
    assert sides((256, 340), 227) == {256, 224, 192, 168}  # 224 is further away
    assert sides((222, 222), 224) == {222, 194, 166, 146}  # 224 does not fit


def test_centre_crop_of_a_square_is_the_short_side_in_the_middle():
    assert centre_crop((240, 320), (224, 224)) == (40, 0, 280, 240)
    assert centre_crop((320, 240), (64, 64)) == (0, 40, 240, 280)
    assert centre_crop((100, 100), (50, 100)) == (0, 25, 100, 75)


@pytest.mark.clause("DATA-6")
def test_resize_is_pillows_bilinear_resize_of_the_box():
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    box, size = (5, 3, 45, 33), (16, 24)
    resized = resize(frames, box, size)
    assert resized.shape == (2, 16, 24, 3) and resized.dtype == np.uint8
    for frame, out in zip(frames, resized, strict=True):
        cut = Image.fromarray(frame).crop(box).resize((24, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(out, np.asarray(cut))


def test_resize_to_the_size_of_the_box_only_cuts():
    frames = np.random.default_rng(1).integers(0, 256, (2, 20, 30, 3), np.uint8)
    np.testing.assert_array_equal(resize(frames, (4, 2, 24, 12), (10, 20)), frames[:, 2:12, 4:24])


def test_luma_weighs_the_colours_as_itu_r_601_and_can_be_resized():
    frames = np.zeros((1, 8, 9, 3), np.uint8)
    frames[..., :3, 0], frames[..., 3:6, 1], frames[..., 6:, 2] = 255, 255, 255
    grey = luma(frames)
    assert grey.shape == (1, 8, 9, 1) and grey.dtype == np.uint8
    assert grey[0, 0, ::3, 0].tolist() == pytest.approx([76, 150, 29], abs=1)
    assert resize(grey, (0, 0, 3, 8), (4, 4)).tolist() == np.full((1, 4, 4, 1), 76).tolist()
