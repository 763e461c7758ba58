"""Tests of the appearance and motion of drawn shapes, measured in pixels, and of the drawn scenes."""

import dataclasses
import itertools
import math
from unittest import mock

import numpy as np
import pytest

from backends_tests.chi_square import assert_uniform
from vmae_keras.data import synthetic
from vmae_keras.data.synthetic import LABELLED, MOTIONS, SHAPE_BOTTOM, SHAPES

SIZE = (64, 80)
SCENE = synthetic.Scene(
    shape="disc",
    motion="bounce",
    radius=0.2,
    position=(0.5, 0.5),
    direction=0.0,
    speed=0.04,
    clockwise=False,
    ramp=0.2,
    bottom=SHAPE_BOTTOM[0],
)


def scene(**changes):
    return dataclasses.replace(SCENE, **changes)


def background(of, frames, size=SIZE):
    outside = mock.patch.object(
        synthetic, "_distance", lambda _, right, *__: np.full_like(right, 9)
    )
    with outside:
        return synthetic.draw_scene(of, frames, size).astype(int)


def places(of, frames, size=SIZE):
    """Return the pixels that the shape changes: (frames, H, W) bool."""
    return (synthetic.draw_scene(of, frames, size) != background(of, frames, size)).any(3)


def centres(of, frames):
    """Return the shape's centres as (x, y), to a fraction of a pixel: (frames, 2)."""
    return np.array([np.argwhere(place).mean(0)[::-1] + 0.5 for place in places(of, frames)])


@pytest.mark.parametrize("direction", [0.0, 0.7, math.pi / 2, -2.0])
def test_a_shape_moves_in_its_direction_at_its_speed(direction):
    step = 0.04 * 64 * np.array([math.cos(direction), math.sin(direction)])
    expected = np.array([40, 32]) + step * np.arange(5)[:, None]
    # A centre is the mean of whole pixels.
    np.testing.assert_allclose(centres(scene(direction=direction), 5), expected, atol=0.3)


def test_walls_turn_a_shape_round():
    """Compare with frames calculated by hand; the distance is at least the radius of 12.8 pixels."""
    x, step, expected = 12.8 + 0.9 * (80 - 2 * 12.8), 0.04 * 64, []
    for _ in range(8):
        expected.append(x)
        x += step
        if x > 80 - 12.8:
            x, step = 2 * (80 - 12.8) - x, -step
    found = centres(scene(position=(0.9, 0.5)), 8)
    # Pixels, as above.
    np.testing.assert_allclose(found, [(x, 32) for x in expected], atol=0.3)
    assert expected[-1] < expected[3]


@pytest.mark.parametrize("clockwise", [True, False])
def test_a_circle_turns_as_it_is_seen(clockwise):
    found = centres(scene(motion="circle", clockwise=clockwise, direction=1.0), 6)
    x, y = ((found - (40, 32)) / (0.85 * (40 - 12.8), 0.85 * (32 - 12.8))).T
    # .5 pixel relative to the smaller radius
    np.testing.assert_allclose(np.hypot(x, y), 1, atol=0.03)
    # y points down, so growing angles turn clockwise.
    turned = np.diff(np.unwrap(np.arctan2(y, x)))
    expected = 0.04 * 64 / (0.85 * (32 - 12.8)) * (1 if clockwise else -1)
    np.testing.assert_allclose(turned, expected, atol=0.03)  # radians; again .5 pixel
    assert LABELLED["clockwise" if clockwise else "anticlockwise"][::2] == ("circle", clockwise)


@pytest.mark.parametrize(
    ("label", "line"),
    [
        ("horizontal", (1, 0)),
        ("vertical", (0, 1)),
        ("falling diagonal", (1, 1)),
        ("rising diagonal", (1, -1)),
    ],
)
def test_a_labelled_shape_moves_along_its_line(label, line):
    """Move right and down, at most .3 radians off the line."""
    for seed in range(3):
        of = synthetic.random_motion(np.random.default_rng(seed), label)
        of = dataclasses.replace(of, shape="disc", position=(0.5, 0.5))
        step = np.diff(centres(of, 2), axis=0)[0]
        assert abs(step @ line) / np.linalg.norm(step) / np.linalg.norm(line) > math.cos(0.4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_the_discs_area_and_is_brightest_at_its_top(shape):
    size = (320, 400)
    (inside,) = places(scene(shape=shape), 1, size)
    assert abs(inside.sum() / (math.pi * 64**2) - 1) < 0.03  # includes border pixels
    down = synthetic.draw_scene(scene(shape=shape), 1, size)[0, inside[:, 200], 200].astype(int)
    assert down[2].min() > 200 and (np.diff(down[2:-2], axis=0) <= 0).all()
    assert (np.argsort(down[-3]) == np.argsort(SCENE.bottom)).all()


def test_the_background_follows_the_shape():
    """Move it by .6 of ten pixels."""
    room = 80 - 2 * 12.8
    before, after = (background(scene(position=(0.5 + x / room, 0.5)), 1)[0] for x in (0, 10))
    assert np.abs(after[:, 6:] - before[:, :-6]).max() <= 1
    assert np.abs(after - before).max() > 5


# Draws -------------------------------------------------------------------------------------------


def drawn(count, label=None):
    generator = np.random.default_rng(0)
    if label is None:
        return [synthetic.random_scene(generator) for _ in range(count)]
    return [synthetic.random_motion(generator, label) for _ in range(count)]


def test_shapes_motions_senses_and_colours_are_drawn_by_themselves():
    found = [(each.shape, each.motion, each.clockwise, each.bottom) for each in drawn(1500)]
    assert_uniform(found, itertools.product(SHAPES, MOTIONS, (True, False), SHAPE_BOTTOM))


def test_places_and_directions_are_drawn_by_themselves():
    def quarter(share):
        return int(4 * share)

    found = [
        (*map(quarter, each.position), quarter(each.direction / (2 * math.pi)))
        for each in drawn(1500)
    ]
    assert_uniform(found, itertools.product(range(4), repeat=3))


@pytest.mark.parametrize("label", LABELLED)
def test_a_labelled_motion_begins_either_way_whatever_the_shape(label):
    """Check circles too, which may start at any point."""
    found = [(math.cos(each.direction - 0.5) > 0, each.shape) for each in drawn(400, label)]
    assert_uniform(found, itertools.product((True, False), SHAPES))
