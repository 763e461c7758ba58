"""Tests of mixing videos and labels: against the oracle with the drawn numbers, and distributions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends_tests.compare import assert_close
from backends_tests.recorded import RecordedGenerator
from spec import mix_reference, recipe_table
from vmae_keras.data.mixing import Mixing, mix_videos, soft_targets

clause = pytest.mark.clause
SEEDS = st.integers(0, 2**32)
HALVES = st.integers(1, 4)
SIDES = st.integers(1, 40)
PARAMETERS = st.sampled_from([(0.8, 1.0), (0.8, 0), (0, 1.0), (0.2, 3.0)])
SIGMAS = 5  # shares and means are within as many standard deviations of the sample


def random_videos(shape, dtype, seed=0):
    generator = np.random.default_rng(seed)
    if dtype == np.uint8:
        return generator.integers(0, 256, shape, np.uint8)
    return generator.random(shape, np.float32).astype(dtype)


def oracles_choice(draws, mixing, picture):
    """Return one (ratio, box) from the next draws, after checking their parameters."""
    height, width = picture
    if next(draws).value >= mixing.probability:
        return 1.0, None
    cut = bool(mixing.cutmix)
    if mixing.mixup and mixing.cutmix:
        cut = next(draws).value < mixing.switch_probability
    beta = next(draws)
    parameter = mixing.cutmix if cut else mixing.mixup
    assert (beta.method, beta.arguments) == ("beta", (parameter, parameter))
    if not cut:
        return beta.value, None
    y, x = next(draws), next(draws)
    assert (y.method, y.arguments) == ("integers", (height,))
    assert (x.method, x.arguments) == ("integers", (width,))
    box = mix_reference.cutmix_box(height, width, beta.value, (x.value, y.value))
    return mix_reference.cutmix_ratio(height, width, box), box


@clause("MIX-4", "MIX-5")
@given(SIDES, SIDES, PARAMETERS, st.sampled_from([1, 0.6, 0]), SEEDS)
def test_choices_are_the_oracles(height, width, parameters, probability, seed):
    mixup, cutmix = parameters
    mixing = Mixing(3, 0.1, mixup, cutmix, probability, switch_probability=0.4)
    generator = RecordedGenerator(seed)
    choice = mixing.draw((height, width), generator)
    draws = iter(generator.draws)
    assert choice == oracles_choice(draws, mixing, (height, width))
    assert next(draws, None) is None


@clause("MIX-3", "MIX-4", "INPUT-1")
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@given(HALVES, st.integers(2, 9), st.integers(2, 9), SEEDS)
def test_mixed_videos_are_the_oracles(dtype, half, height, width, seed):
    """Compare within float32 rounding; measured 1.1e-7."""
    videos = random_videos((2 * half, 2, height, width, 3), dtype, seed)
    generator = np.random.default_rng(seed)
    choice = Mixing(3).draw((height, width), generator)
    before = videos.copy()
    mixed = mix_videos(videos, choice)
    assert mixed.shape == videos.shape and mixed.dtype == np.float32
    np.testing.assert_array_equal(videos, before)
    values = videos / 255 if dtype == np.uint8 else videos
    choices = mix_reference.choices_of_clips(choice, 2 * half)
    assert_close(mixed, mix_reference.mixed_videos(values, choices), "float32")


@clause("MIX-1")
@given(HALVES, st.integers(1, 12), st.sampled_from([0, 0.1, 0.5]), st.floats(0, 1), SEEDS)
def test_targets_are_the_oracles_and_sum_to_one(half, classes, smoothing, ratio, seed):
    """Compare within rounding; measured 3.0e-8 per value, 2.4e-7 for their sum."""
    labels = np.random.default_rng(seed).integers(classes, size=2 * half)
    targets = soft_targets(labels, classes, smoothing, ratio)
    assert targets.shape == (2 * half, classes) and targets.dtype == np.float32
    expected = mix_reference.soft_targets(labels, classes, smoothing, [ratio] * 2 * half)
    assert_close(targets, expected, "float32")
    assert_close(targets.sum(1), np.ones(2 * half), "float32")


@clause("MIX-1", "MIX-3", "MIX-4")
def test_videos_and_targets_are_mixed_by_the_same_ratios():
    """Check with videos that show their label everywhere, so that pixels reveal the ratio of the target."""
    labels = np.array([0, 1, 2, 3, 4, 5])
    videos = np.broadcast_to(
        (labels * 10).astype(np.uint8)[:, None, None, None, None], (6, 4, 32, 24, 3)
    )
    mixing = Mixing(6, label_smoothing=0)
    for seed in range(30):
        choice = mixing.draw((32, 24), np.random.default_rng(seed))
        mixed, targets = mixing.mix(videos, labels, choice)
        shown = mixed.mean((1, 2, 3, 4)) * 25.5
        assert_close(shown, targets @ labels, "float32")
        # equal in every frame and channel
        assert (mixed == mixed[:, :1, :, :, :1]).all()
        assert set(np.flatnonzero(targets[1])) <= {1, 4}


@clause("MIX-4")
def test_a_box_is_of_rows_and_columns():
    """MIX-4: Cut rows and columns, not frames and rows as in the official mode "pair"."""
    videos = np.zeros((2, 3, 6, 8, 3), np.uint8)
    videos[1] = 255
    choice = (0.75, (2, 1, 5, 5))
    first, second = mix_videos(videos, choice)
    expected = np.zeros((3, 6, 8, 3))
    expected[:, 1:5, 2:5] = 1
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second, 1 - expected)


@clause("MIX-3")
def test_a_mixture_of_uint8_videos_is_not_rounded():
    videos = np.array([[0], [1]], np.uint8).reshape(2, 1, 1, 1, 1)
    mixed = mix_videos(videos, (0.25, None)).ravel() * 255
    assert_close(mixed, [0.75, 0.25], "float32")


@clause("MIX-5")
@pytest.mark.parametrize(
    ("mixup", "cutmix", "probability", "switch"),
    [(0.8, 1.0, 1.0, 0.5), (0.8, 1.0, 0.7, 0.2), (0, 1.0, 0.4, 0.5), (0.8, 0, 0.4, 0.5)],
)
def test_kinds_and_ratios_are_drawn_as_often_as_they_should_be(mixup, cutmix, probability, switch):
    mixing = Mixing(3, 0.1, mixup, cutmix, probability, switch)
    generator = np.random.default_rng(0)
    choices = [mixing.draw((1000, 1000), generator) for _ in range(8000)]
    boxes = [ratio for ratio, box in choices if box]
    blends = [ratio for ratio, box in choices if not box and ratio != 1]
    cut_share = switch if mixup and cutmix else float(bool(cutmix))
    for drawn, share in (
        (boxes, probability * cut_share),
        (blends, probability * (1 - cut_share)),
    ):
        off = abs(len(drawn) - 8000 * share)
        assert off <= SIGMAS * math.sqrt(8000 * share * (1 - share))
    if mixup:
        # Beta distribution with both parameters a: mean 1/2, variance 1 / (4 (2 a + 1)).
        variance = 1 / (4 * (2 * mixup + 1))
        assert abs(np.mean(blends) - 0.5) < SIGMAS * math.sqrt(variance / len(blends))
        assert np.var(blends) == pytest.approx(variance, rel=0.1)  # some 4000 draws
    if cutmix:
        # q' is uniform. A centred box keeps all of it; at an edge the box is cut, so more is left.
        assert 0.5 < np.mean(boxes) < 0.75
        assert min(boxes) < 0.05 and max(boxes) > 0.95


@clause("MIX-2")
def test_an_odd_batch_is_refused():
    videos, labels = np.zeros((3, 2, 4, 4, 3), np.uint8), np.zeros(3, int)
    with pytest.raises(ValueError, match=r"even number of them. Received: 3. Change the batch"):
        Mixing(5).mix(videos, labels, (0.5, None))


@clause("MIX-1")
def test_without_mixing_labels_are_smoothed_alone():
    videos = random_videos((3, 2, 4, 4, 3), np.uint8)
    off = Mixing(4, label_smoothing=0.1, mixup=0, cutmix=0)
    choice = off.draw((4, 4), np.random.default_rng(0))
    mixed, targets = off.mix(videos, np.array([3, 0, 1]), choice)
    np.testing.assert_array_equal(mixed, videos / np.float32(255))
    assert_close(targets[0], [0.025, 0.025, 0.025, 0.925], "float32")


@clause("MASK-6")
def test_equal_generators_draw_alike():
    first, again = (Mixing(4).draw((8, 8), np.random.default_rng(7)) for _ in range(2))
    assert first == again


@clause("MIX-1", "MIX-3", "MIX-4", "MIX-5")
@pytest.mark.parametrize("name", recipe_table.runs("fine_tuning"))
def test_the_defaults_are_those_of_the_recipes(name):
    run, ours = recipe_table.runs("fine_tuning")[name], Mixing(classes=400)
    assert ours.label_smoothing == run["label_smoothing"]
    assert (ours.mixup, ours.cutmix) == (run["mixup"], run["cutmix"])
    assert ours.probability == run["mixup_probability"]
    assert ours.switch_probability == run["cutmix_switch_probability"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixing(0), "`classes` must be at least 1. Received: classes=0"),
        (lambda: Mixing(5, label_smoothing=-1), "`label_smoothing` must be from 0 to 1. Received"),
        (lambda: Mixing(5, mixup=-0.8), "`mixup` must not be negative, 0 turns it off. Received"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
