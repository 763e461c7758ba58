"""Tests of fine-tuning's augmentation: against the oracle with the drawn numbers, and distributions."""

import math
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends_tests.compare import assert_close
from backends_tests.profiles import examples
from backends_tests.recorded import RecordedGenerator
from spec import augment_reference as oracle
from spec import recipe_table
from vmae_keras.data import augmentation
from vmae_keras.data.augmentation import Augmentation, erase, random_crop, resize_linearly
from vmae_keras.data.rand_augment import OPERATIONS, RandAugment, apply_operations

clause = pytest.mark.clause
SEEDS = st.integers(0, 2**32)
SIDES = st.integers(1, 400)
FEW = st.integers(1, 12)
# Shares and means are within five standard deviations of the sample. Seeds are fixed.
SIGMAS = 5


def random_frames(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def smooth_frames(count, height, width):
    """Return frames of bright and dark areas: gaps in histograms distinguish equalising and stretching."""
    t, y, x, channel = np.ogrid[:count, :height, :width, :3]
    waves = np.sin(x / 5 + t) + np.cos(y / 4 - channel) + channel / 4
    return (60 + 40 * waves).astype(np.uint8)


def share(count, of, expected):
    assert abs(count - of * expected) < SIGMAS * math.sqrt(of * expected * (1 - expected))


def tries_and_corner(draws, area, log_aspect):
    """Return pairs of uniform draws, then the corner's (x, y), after checking their ranges."""
    uniform = [draw for draw in draws if draw.method == "uniform"]
    assert [draw.arguments for draw in uniform] == [area, log_aspect] * (len(uniform) // 2)
    values = [draw.value for draw in uniform]
    corner = [draw.value for draw in draws if draw.method == "integers"]
    return list(zip(values[::2], values[1::2], strict=True)), corner


def room_of_corner(draws):
    """Return the numbers of places from which x and y were drawn."""
    return [draw.arguments[0] for draw in draws if draw.method == "integers"]


# The crop ----------------------------------------------------------------------------------------

AREA, LOG_ASPECT = (0.08, 1.0), (math.log(0.75), math.log(1.3333))


@clause("AUG-2", "AUG-3")
@given(SIDES, SIDES, SEEDS)
def test_the_crop_is_the_oracles(height, width, seed):
    generator = RecordedGenerator(seed)
    box = random_crop((height, width), AREA, (0.75, 1.3333), generator)
    tries, corner = tries_and_corner(generator.draws, AREA, LOG_ASPECT)
    size = oracle.crop_size(height, width, tries)
    if size:
        assert room_of_corner(generator.draws) == [width - size[1] + 1, height - size[0] + 1]
    else:
        assert corner == [] and len(tries) == 10
    assert box == oracle.crop_box(height, width, tries, corner)
    left, top, right, bottom = box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


@clause("AUG-12")
@given(SIDES, SIDES, st.sampled_from([(16, 16), (8, 32), (30, 10)]), SEEDS)
def test_crops_have_the_proportions_of_the_clip(height, width, size, seed):
    """Check fallbacks of strips too, whose other side would round to 0."""
    generator = RecordedGenerator(seed)
    frames = np.zeros((1, height, width, 3), np.uint8)
    with mock.patch.object(augmentation, "resize_linearly") as resize:
        resize.return_value = np.zeros((1, *size, 3), np.float32)
        Augmentation(size, None, erasing_probability=0)(frames, generator)
    proportion = size[1] / size[0]
    draws = [draw for draw in generator.draws if draw.method != "random"]
    ends = tuple(math.log(end * proportion) for end in (0.75, 1.3333))
    tries, corner = tries_and_corner(draws, AREA, ends)
    box = resize.call_args.args[1]
    assert box == oracle.crop_box(height, width, tries, corner, proportion)
    left, top, right, bottom = box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


@clause("AUG-3")
@pytest.mark.parametrize(
    ("picture", "drawn", "box"),
    [
        ((10, 1000), max, (493, 0, 506, 10)),
        ((1000, 10), max, (0, 493, 10, 506)),
        ((1, 1), min, (0, 0, 1, 1)),
    ],
)
def test_when_no_try_fits_the_middle_is_taken(picture, drawn, box):
    """Draw crops that do not fit: a strip's whole area in any proportions, and .08 pixels."""
    generator = RecordedGenerator(0)
    generator.uniform = lambda *ends: drawn(ends)
    assert random_crop(picture, AREA, (0.75, 1.3333), generator) == box


@clause("AUG-2")
def test_crops_of_all_allowed_areas_and_proportions_are_drawn():
    generator = np.random.default_rng(0)
    boxes = np.array(
        [random_crop((1000, 1000), AREA, (0.75, 1.3333), generator) for _ in range(3000)]
    )
    widths, heights = (boxes[:, 2:] - boxes[:, :2]).T
    areas, aspects = widths * heights / 1e6, widths / heights
    assert 0.079 < areas.min() < 0.09 and 0.95 < areas.max() <= 1
    assert 0.745 < aspects.min() < 0.76 and 1.32 < aspects.max() < 1.34
    # An area up to .75 fits in any proportions, so areas below it are uniform.
    share((areas < 0.415).sum(), (areas < 0.75).sum(), 0.5)
    small = aspects[areas < 0.75]
    share((small < 1).sum(), len(small), math.log(1 / 0.75) / math.log(1.3333 / 0.75))


@clause("AUG-4", "AUG-5")
@given(FEW, FEW, FEW, FEW, st.booleans(), SEEDS)
def test_the_resized_crop_is_the_oracles(height, width, new_height, new_width, mirror, seed):
    """Compare within float32 rounding; measured 1.2e-7."""
    frames = random_frames((2, height + 3, width + 2), seed)
    box, size = (1, 2, 1 + width, 2 + height), (new_height, new_width)
    resized = resize_linearly(frames, box, size, mirror=mirror)
    assert resized.shape == (2, *size, 3) and resized.dtype == np.float32
    expected = oracle.resize_crop(frames, box, size)
    if mirror:
        expected = expected[:, :, ::-1]
    assert_close(resized, expected, "float32")


# RandAugment -------------------------------------------------------------------------------------

SIGNED = {"Color", "Contrast", "Brightness", "Sharpness", *OPERATIONS[11:], "Rotate"}
GEOMETRIC = {"Rotate", *OPERATIONS[11:]}


@clause("AUG-6", "AUG-7")
@given(SEEDS, st.sampled_from([0, 2.5, 7, 9.9]), st.sampled_from([0, 0.5, 3]), st.integers(0, 6))
def test_operations_and_arguments_are_the_oracles(seed, magnitude, deviation, count):
    generator = RecordedGenerator(seed)
    drawn = RandAugment(magnitude, count, deviation).draw(generator)
    choice, *draws = generator.draws
    assert choice.arguments == (15,)
    draws, expected = iter(draws), []
    for index in choice.value:
        if next(draws).value < 0.5:
            continue
        normal = next(draws)
        assert (normal.method, normal.arguments) == ("normal", (magnitude, deviation))
        name = oracle.OPERATIONS[index]
        sign = 1 if next(draws).value < 0.5 else -1
        expected.append((name, oracle.argument(name, min(max(normal.value, 0), 10), sign)))
    assert drawn == expected and next(draws, None) is None


@clause("AUG-6")
def test_operations_are_drawn_as_often_as_they_should_be():
    """Check 15 equally likely operations, half applied, with replacement; signs; magnitudes of 7 and .5."""
    generator = np.random.default_rng(0)
    clips = [RandAugment().draw(generator) for _ in range(6000)]
    counts = Counter(name for clip in clips for name, _ in clip)
    applied = sum(counts.values())
    share(applied, 4 * 6000, 0.5)
    assert counts.keys() == set(oracle.OPERATIONS) == set(OPERATIONS)
    for count in counts.values():
        share(count, applied, 1 / 15)
    lengths = Counter(len(clip) for clip in clips)
    for length in range(5):
        share(lengths[length], 6000, math.comb(4, length) / 16)
    # Four applied operations all differ with probability 15 x 14 x 13 x 12 / 15^4.
    full = [{name for name, _ in clip} for clip in clips if len(clip) == 4]
    share(sum(len(names) == 4 for names in full), len(full), 14 * 13 * 12 / 15**3)
    degrees = np.array([told for clip in clips for name, told in clip if name == "Rotate"])
    share((degrees > 0).sum(), len(degrees), 0.5)
    magnitudes = abs(degrees) / 3
    assert abs(magnitudes.mean() - 7) < SIGMAS * 0.5 / math.sqrt(len(degrees))
    assert abs(magnitudes.std() / 0.5 - 1) < SIGMAS / math.sqrt(2 * len(degrees))


@clause("AUG-7", "AUG-8")
@pytest.mark.parametrize("name", oracle.OPERATIONS)
@examples(12)
@given(
    st.integers(0, 100),
    st.sampled_from([1, -1]),
    st.integers(1, 14),
    st.integers(1, 17),
    st.booleans(),
)
def test_frames_are_changed_as_the_oracle_changes_them(name, tenths, sign, height, width, smooth):
    """Compare, allowing one level, as blends and interpolated pixels are truncated to whole levels.

    Measured: no difference in any of the operations, 1.8e5 values.
    """
    magnitude = tenths / 10
    shape = (2, height, width)
    frames = smooth_frames(*shape) if smooth else random_frames(shape, height)
    told = oracle.argument(name, magnitude, sign)
    changed = apply_operations(frames, [(name, told)])
    assert changed.shape == frames.shape and changed.dtype == np.uint8
    expected = np.stack([oracle.changed(frame, name, told) for frame in frames])
    away = abs(changed.astype(int) - expected)
    if name in {"AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd"}:
        assert away.max() == 0
    else:
        assert away.max() <= 1 and (away > 0).sum() <= 1 + away.size / 100


@clause("AUG-8")
@pytest.mark.parametrize(
    ("name", "told", "moved_to"),
    [
        ("TranslateXRel", 0.25, (5, 8)),  # the pixel at x + 3 moves to x
        ("TranslateYRel", -0.25, (8, 11)),
        ("ShearX", 1 / 8, (7, 8)),
        ("ShearY", -1 / 8, (8, 9)),
        ("Rotate", 90.0, (8, 3)),  # counter-clockwise: right moves to the top
    ],
)
def test_a_dot_moves_where_it_should(name, told, moved_to):
    """Move a dot by hand in 12 x 12 pixels, from (x, y) = (8, 8); rows count from the top."""
    frame = np.zeros((1, 12, 12, 3), np.uint8)
    frame[0, 8, 8] = 255
    changed = apply_operations(frame, [(name, told)])[0, ..., 0].astype(int)
    changed[changed == 128] = 0  # fill that came from outside
    y, x = np.unravel_index(changed.argmax(), changed.shape)
    assert (x, y) == moved_to


@clause("AUG-6")
def test_operations_follow_one_another():
    frames = smooth_frames(2, 20, 30)
    told = [("Solarize", 77), ("TranslateXRel", 0.3), ("Invert", None)]
    one_by_one = frames
    for operation in told:
        one_by_one = apply_operations(one_by_one, [operation])
    np.testing.assert_array_equal(apply_operations(frames, told), one_by_one)
    generator = np.random.default_rng(3)
    drawn = RandAugment().draw(np.random.default_rng(3))
    np.testing.assert_array_equal(RandAugment()(frames, generator), apply_operations(frames, drawn))


# Erasing -----------------------------------------------------------------------------------------

ERASED = (0.02, 1 / 3), (math.log(0.3), math.log(1 / 0.3))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@clause("AUG-9", "AUG-10")
@given(st.integers(1, 60), st.integers(1, 60), SEEDS)
def test_the_erased_region_is_the_oracles(height, width, seed):
    clip = random_frames((3, height, width), 1) / np.float32(255)
    generator, erased = RecordedGenerator(seed), clip.copy()
    erase(erased, MEAN, STD, generator)
    tries, corner = tries_and_corner(generator.draws, *ERASED)
    box = oracle.erased_box(height, width, tries, corner)
    if box is None:
        assert len(tries) == 100 and corner == []
        np.testing.assert_array_equal(erased, clip)
        return
    left, top, right, bottom = box
    room = [width - (right - left) + 1, height - (bottom - top) + 1]
    assert room_of_corner(generator.draws) == room
    noise = generator.draws[-1].value
    assert noise.shape == (3, bottom - top, right - left, 3)
    assert_close(erased, oracle.erase(clip, box, noise, MEAN, STD), "float32")


@clause("AUG-10", "INPUT-2")
def test_normalised_noise_is_normal_and_of_every_frame_its_own():
    clip = np.zeros((4, 224, 224, 3), np.float32)
    erase(clip, MEAN, STD, np.random.default_rng(0))
    erased = (clip != 0).all((0, 3))
    assert ((clip != 0).any((0, 3)) == erased).all()  # same region in all frames
    noise = ((clip - np.float32(MEAN)) / np.float32(STD))[:, erased]
    count = noise[..., 0].size
    assert (abs(noise.mean((0, 1))) < SIGMAS / math.sqrt(count)).all()
    assert (abs(noise.std((0, 1)) - 1) < SIGMAS / math.sqrt(2 * count)).all()
    assert clip.min() < 0 and clip.max() > 1
    between = np.corrcoef(noise.transpose(0, 2, 1).reshape(12, -1)) - np.eye(12)
    assert abs(between).max() < SIGMAS / math.sqrt(erased.sum())


# All of it ---------------------------------------------------------------------------------------


@clause("AUG-1", "AUG-5", "AUG-9")
@given(st.integers(20, 60), st.integers(20, 60), SEEDS)
def test_crop_mirror_and_region_in_this_order(height, width, seed):
    """Compare with the oracle's result for the drawn numbers. Measured: 1.5e-7."""
    frames = random_frames((2, height, width), seed)
    generator = RecordedGenerator(seed)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    clip = Augmentation((16, 14), None, mean=mean, std=std)(frames, generator)
    assert clip.shape == (2, 16, 14, 3) and clip.dtype == np.float32
    mirror, erasing = (
        index for index, draw in enumerate(generator.draws) if draw.method == "random"
    )
    log_aspect = tuple(math.log(end * (14 / 16)) for end in (0.75, 1.3333))
    tries, corner = tries_and_corner(generator.draws[:mirror], AREA, log_aspect)
    box = oracle.crop_box(height, width, tries, corner, 14 / 16)
    expected = oracle.resize_crop(frames, box, (16, 14))
    if generator.draws[mirror].value < 0.5:
        expected = expected[:, :, ::-1]
    if generator.draws[erasing].value < 0.25:
        *region, noise = generator.draws[erasing + 1 :]
        box = oracle.erased_box(16, 14, *tries_and_corner(region, *ERASED))
        expected = oracle.erase(expected, box, noise.value, mean, std)
    else:
        assert len(generator.draws) == erasing + 1
    assert_close(clip, expected, "float32")


@clause("AUG-1", "MASK-6")
def test_operations_come_first_on_whole_frames():
    frames = smooth_frames(2, 60, 80)
    for seed in range(20):
        generator = np.random.default_rng(seed)
        changed = RandAugment()(frames, generator)
        expected = Augmentation((32, 32), None)(changed, generator)
        clip = Augmentation((32, 32))(frames, np.random.default_rng(seed))
        np.testing.assert_array_equal(clip, expected)


@clause("AUG-1")
def test_equal_frames_stay_equal():
    frames = np.repeat(random_frames((1, 50, 70)), 4, axis=0)
    augmentation = Augmentation((32, 32), erasing_probability=0)
    for seed in range(40):
        clip = augmentation(frames, np.random.default_rng(seed))
        assert (clip == clip[0]).all()


@clause("AUG-5", "AUG-9")
@pytest.mark.parametrize(("flips", "erasings"), [(0.5, 0.25), (0, 0), (1, 1)])
def test_mirrors_and_regions_are_as_frequent_as_set(flips, erasings):
    frames = np.zeros((1, 40, 40, 3), np.uint8)
    frames[:, :, 20:] = 255  # brighter to the right
    augmentation = Augmentation(
        (30, 30), None, (1, 1), (1, 1), flip_probability=flips, erasing_probability=erasings
    )
    generator = np.random.default_rng(0)
    clips = [augmentation(frames, generator) for _ in range(1000)]
    mirrored = sum(np.median(clip[..., :12, :]) > np.median(clip[..., 18:, :]) for clip in clips)
    erased = sum(len(np.unique(clip)) > 5 for clip in clips)
    for count, probability in ((mirrored, flips), (erased, erasings)):
        if probability in (0, 1):
            assert count == 1000 * probability
        else:
            share(count, 1000, probability)


@clause("AUG-2", "AUG-5", "AUG-6", "AUG-9", "AUG-10")
@pytest.mark.parametrize("name", recipe_table.runs("fine_tuning"))
def test_the_defaults_are_those_of_the_recipes(name):
    run, ours = recipe_table.runs("fine_tuning")[name], Augmentation((224, 224))
    assert ours.rand_augment == RandAugment.parse(run["auto_augment"])
    assert (list(ours.crop_area), list(ours.crop_aspect)) == (run["crop_area"], run["crop_aspect"])
    assert ours.erasing_probability == run["erasing_probability"]
    assert (run["erasing_mode"], run["erasing_count"]) == ("pixel", 1)
    assert run["flip_probability"] == (0 if run["data"] == "SSv2" else ours.flip_probability)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandAugment(11), "`magnitude` must be from 0 to 10. Received: magnitude=11"),
        (lambda: RandAugment(operations=-1), "`operations` must not be negative. Received: op"),
        (lambda: RandAugment(deviation=-0.5), "`deviation` must not be negative"),
        (lambda: RandAugment.parse("rand-m7-n4-mstd0.5"), "must have the form rand-m7-n4-mstd0.5-"),
        (lambda: Augmentation((8, 8), flip_probability=2), "`flip_probability` must be from 0 to"),
        (lambda: Augmentation((8, 8), crop_area=(0.5, 2)), "`crop_area` must be .* at most 1. Rec"),
        (lambda: Augmentation((8, 8), crop_aspect=(0, 1)), "`crop_aspect` must be .least, most."),
        (
            lambda: Augmentation((8, 8))(np.zeros((2, 8, 8, 3)), np.random.default_rng(0)),
            r"uint8, as read from a video. Received: shape \(2, 8, 8, 3\), float64",
        ),
        (
            lambda: Augmentation((8, 8))(np.zeros((2, 8, 8, 1), "u1"), np.random.default_rng(0)),
            r"Received: shape \(2, 8, 8, 1\), uint8",
        ),
    ],
)
def test_settings_and_frames_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
