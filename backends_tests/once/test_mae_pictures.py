"""Tests of pictures of an image MAE, whose target spans all channels together, after mean and std."""

import numpy as np
import pytest

from spec import reference
from spec.config import Config
from vmae_keras.data.synthetic import moving_shapes
from vmae_keras.pictures import patch_statistics

TUBELET = (1, 8, 8)
CONFIG = Config(frames=1, height=48, width=64, tubelet=TUBELET, mae_target=True)
STANDARD = CONFIG.mean, CONFIG.std
HONEST = ("seamless", "visible")


@pytest.fixture(scope="module")
def clip():
    return moving_shapes(np.random.default_rng(2), 1, (48, 64))


@pytest.fixture(scope="module")
def ids():
    """Return visible and masked ids of a mask that hides three quarters."""
    order = np.random.default_rng(0).permutation(48)
    return np.sort(order[36:]), np.sort(order[:36])


def shown(clip, ids, statistics, prediction=None, norm_pix=True):
    """Return the picture of a prediction, by default of the true target."""
    visible, masked = ids
    if prediction is None:
        config = Config(**{**vars(CONFIG), "norm_pix": norm_pix})
        (prediction,) = reference.target(config, clip[None], masked[None])
    return patch_statistics.reconstruction(
        clip, visible, masked, prediction, TUBELET, statistics, STANDARD
    )


@pytest.mark.clause("IMAGE-6")
@pytest.mark.parametrize(("statistics", "norm_pix"), [("oracle", True), ("pixels", False)])
def test_the_true_target_gives_the_clip_exactly(clip, ids, statistics, norm_pix):
    np.testing.assert_array_equal(shown(clip, ids, statistics, norm_pix=norm_pix), clip)


@pytest.mark.clause("RECON-1", "IMAGE-6")
@pytest.mark.parametrize("statistics", HONEST)
def test_hidden_pixels_do_not_leak_and_the_target_shows_more_than_noise(clip, ids, statistics):
    masked = ids[1]
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((len(masked), 192))
    tokens = patch_statistics.cut(clip, TUBELET)
    other = patch_statistics.paste(tokens, masked, generator.integers(0, 256, noise.shape))
    other = patch_statistics.join(other, clip.shape, TUBELET)
    of_noise = shown(clip, ids, statistics, noise)
    np.testing.assert_array_equal(of_noise, shown(other, ids, statistics, noise))

    def error(found):
        return np.sqrt(((found.astype(float) - clip) ** 2).mean())

    assert error(shown(clip, ids, statistics)) < 0.8 * error(of_noise)


@pytest.mark.clause("IMAGE-6")
def test_statistics_are_the_oracles_in_units_of_pixels(clip):
    tokens = patch_statistics.cut(clip, TUBELET) / 255
    mean, spread = patch_statistics.tubelet_statistics(tokens, 3, STANDARD)
    found = patch_statistics.denormalise(np.ones((48, 192)), mean, spread)
    every = np.arange(48)[None]
    expected = reference.reconstruct(
        CONFIG, np.ones((1, 48, 192)), *reference.statistics(CONFIG, clip[None], every)
    )
    np.testing.assert_allclose(found, expected[0], atol=2e-6)  # 1e-6 is added a second time
