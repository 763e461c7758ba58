"""Tests of reconstruction pictures: exact arithmetic, no leak of hidden pixels, files that decode."""

import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from backends_tests.compare import assert_close
from spec import reference
from spec.config import Config
from vmae_keras.data.synthetic import moving_shapes
from vmae_keras.pictures import clips, patch_statistics

TUBELET = (2, 8, 8)
GRID = (4, 6, 8)
HONEST = ("seamless", "visible")


@pytest.fixture
def clip():
    return moving_shapes(np.random.default_rng(2), 8, (48, 64))


@pytest.fixture
def ids():
    """Return visible and masked ids of a tube mask that hides three quarters."""
    order = np.random.default_rng(0).permutation(48)
    slots = np.arange(4)[:, None] * 48
    return (slots + np.sort(order[36:])).ravel(), (slots + np.sort(order[:36])).ravel()


def normalised(clip):
    tokens = patch_statistics.cut(clip, TUBELET) / 255
    return patch_statistics.normalise(tokens, *patch_statistics.tubelet_statistics(tokens, 3))


def error(shown, clip):
    """Return the root mean square error in levels."""
    return np.sqrt(((shown.astype(float) - clip) ** 2).mean())


@pytest.mark.clause("TUBE-1", "TUBE-2")
def test_tokens_are_row_major_with_the_channel_fastest(clip):
    tokens = patch_statistics.cut(clip, TUBELET)
    ti, hi, wi = 1, 2, 5
    p0, p1, p2, channel = 1, 3, 6, 2
    token, place = (ti * 6 + hi) * 8 + wi, ((p0 * 8 + p1) * 8 + p2) * 3 + channel
    assert tokens[token, place] == clip[2 * ti + p0, 8 * hi + p1, 8 * wi + p2, channel]
    np.testing.assert_array_equal(patch_statistics.join(tokens, clip.shape, TUBELET), clip)


@pytest.mark.clause("TARGET-2")
def test_target_is_normalised_per_channel_with_the_unbiased_deviation(clip):
    pixels = normalised(clip).reshape(-1, 128, 3)
    np.testing.assert_allclose(pixels.mean(1), 0, atol=1e-9)  # rounding of a sum in float64
    # (x - mean) / (deviation + 1e-6) has a deviation slightly below one, depending on the tubelet's own.
    np.testing.assert_allclose(pixels.var(1, ddof=1), 1, atol=1e-3)
    assert (pixels.var(1, ddof=1) < 1).all()


@pytest.mark.clause("TARGET-2", "RECON-1")
def test_targets_and_pixels_are_the_oracles_also_where_nearly_flat(clip):
    generator = np.random.default_rng(0)
    video = clip[None] / 255
    video[0, :2, :8] = 0.5 + 1e-6 * generator.standard_normal((2, 8, 64, 3))
    video[0, 2:4, :8] = 0.25
    config = Config(frames=8, height=48, width=64, tubelet=TUBELET)
    every = np.arange(192)[None]
    tokens = patch_statistics.cut(video[0], TUBELET)
    levels = patch_statistics.tubelet_statistics(tokens, 3)
    (expected,) = reference.target(config, video, every)
    # Measured: 0. One rounding of a flat tubelet's mean, divided by 1e-6, would give 1.1e-10.
    np.testing.assert_allclose(patch_statistics.normalise(tokens, *levels), expected, atol=1e-9)
    prediction = generator.standard_normal(tokens.shape)
    (expected,) = reference.reconstruct(
        config, prediction[None], *reference.statistics(config, video, every)
    )
    pixels = patch_statistics.denormalise(prediction, *levels)
    assert_close(pixels, expected, "float64")


@pytest.mark.clause("RECON-1")
def test_true_statistics_and_the_true_target_give_the_clip_exactly(clip, ids):
    visible, masked = ids
    shown = patch_statistics.reconstruction(
        clip, visible, masked, normalised(clip)[masked], TUBELET, "oracle"
    )
    np.testing.assert_array_equal(shown, clip)


def test_predicted_pixels_are_shown_as_they_are(clip, ids):
    visible, masked = ids
    prediction = patch_statistics.cut(clip, TUBELET)[masked] / 255
    shown = patch_statistics.reconstruction(clip, visible, masked, prediction, TUBELET, "pixels")
    np.testing.assert_array_equal(shown, clip)


@pytest.mark.clause("RECON-1")
@pytest.mark.parametrize("statistics", HONEST)
def test_hidden_pixels_do_not_leak(clip, ids, statistics):
    visible, masked = ids
    prediction = np.random.default_rng(1).standard_normal((len(masked), 384))
    tokens = patch_statistics.cut(clip, TUBELET)
    noise = np.random.default_rng(3).integers(0, 256, (len(masked), 384))
    other = patch_statistics.join(
        patch_statistics.paste(tokens, masked, noise), clip.shape, TUBELET
    )
    assert error(other, clip) > 50
    arguments = visible, masked, prediction, TUBELET, statistics
    np.testing.assert_array_equal(
        patch_statistics.reconstruction(clip, *arguments),
        patch_statistics.reconstruction(other, *arguments),
    )


def test_the_oracle_does_leak(clip, ids):
    """Check that the test above can fail: with true statistics, predicting noise reveals the clip."""
    visible, masked = ids
    prediction = np.zeros((len(masked), 384))
    arguments = visible, masked, prediction, TUBELET, "oracle"
    shown = patch_statistics.reconstruction(clip, *arguments)
    assert not np.array_equal(shown, patch_statistics.reconstruction(255 - clip, *arguments))
    assert "oracle" in patch_statistics.LABELS["oracle"]


@pytest.mark.parametrize("statistics", patch_statistics.LABELS)
def test_visible_tubelets_stay_and_hidden_ones_not_decoded_are_grey(clip, ids, statistics):
    visible, masked = ids
    decoded = np.sort(np.concatenate([masked[::2], visible[:5]]))
    prediction = np.random.default_rng(1).standard_normal((len(decoded), 384))
    arguments = visible, decoded, prediction, TUBELET, statistics
    shown = patch_statistics.cut(patch_statistics.reconstruction(clip, *arguments), TUBELET)
    np.testing.assert_array_equal(shown[visible], patch_statistics.cut(clip, TUBELET)[visible])
    assert (shown[masked[1::2]] == patch_statistics.GREY).all()
    assert (shown[masked[::2]] != patch_statistics.GREY).any(1).all()


def test_interpolated_statistics_keep_the_visible_and_stay_in_their_range(clip, ids):
    visible, _ = ids
    found = patch_statistics.visible_statistics(clip, visible, TUBELET)
    true = patch_statistics.tubelet_statistics(patch_statistics.cut(clip, TUBELET) / 255, 3)
    for got, expected in zip(found, true, strict=True):
        assert got.shape == (192, 3)
        assert_close(got[visible], expected[visible], "float32")
        # The weights sum to 1 up to rounding.
        assert (got >= expected[visible].min(0) - 1e-9).all()
        assert (got <= expected[visible].max(0) + 1e-9).all()  # as above


def test_seamless_statistics_halve_the_error_of_interpolated_ones(clip, ids):
    visible, masked = ids
    prediction = normalised(clip)[masked]
    errors = [
        error(
            patch_statistics.reconstruction(clip, visible, masked, prediction, TUBELET, kind), clip
        )
        for kind in HONEST
    ]
    assert errors[0] < errors[1] / 2


def test_seamless_statistics_find_a_plain_ramp():
    """Restore every hidden patch of a ramp, whose only seams are its own."""
    down, right = np.mgrid[:32, :32]
    frame = np.stack([4 * down + 60, 3 * right + 80, 2 * (down + right) + 40], -1)
    clip = np.repeat(frame[None].astype("uint8"), 4, 0)
    visible = np.array([0, 2, 5, 8, 11, 14])
    visible = np.concatenate([visible, visible + 16])
    masked = np.setdiff1d(np.arange(32), visible)
    prediction = normalised(clip)[masked]
    shown = patch_statistics.reconstruction(clip, visible, masked, prediction, TUBELET)
    assert np.abs(shown.astype(int) - clip).max() <= 1


def test_statistics_work_for_tubelets_of_a_single_pixel_side():
    clip = moving_shapes(np.random.default_rng(0), 2, (16, 16))
    visible, masked = np.arange(0, 256, 2), np.arange(1, 256, 2)
    prediction = np.zeros((128, 6))
    levels = patch_statistics.seamless_statistics(clip, visible, masked, prediction, (2, 1, 1))
    assert all(level.shape == (256, 3) and np.isfinite(level).all() for level in levels)


def test_masked_clip_is_grey_exactly_where_hidden(clip, ids):
    visible, masked = ids
    seen = patch_statistics.cut(patch_statistics.masked_clip(clip, visible, TUBELET), TUBELET)
    assert seen.dtype == np.uint8 and (seen[masked] == 128).all()
    np.testing.assert_array_equal(seen[visible], patch_statistics.cut(clip, TUBELET)[visible])


def test_rows_show_first_to_last_frame_enlarged_by_a_whole_factor(clip):
    image = clips.rows_picture([("clip", clip), ("again", clip)], columns=3, frame_width=100)
    pixels = np.asarray(image)
    assert image.mode == "RGB" and image.width % 2 == image.height % 2 == 0
    for frame in (clip[0], clip[4], clip[7]):
        large = frame.repeat(2, 0).repeat(2, 1)
        windows = np.argwhere((pixels == large[0, 0]).all(2))
        found = [
            (y, x) for y, x in windows if np.array_equal(pixels[y : y + 96, x : x + 128], large)
        ]
        assert len(found) == 2 and found[0][1] == found[1][1]


def test_labels_and_caption_are_drawn_within_the_picture(clip):
    def ink(**changes):
        arguments = {"label": "", "caption": "", **changes}
        rows = [(arguments["label"], np.full_like(clip, 255))]
        image = clips.rows_picture(rows, columns=2, caption=arguments["caption"])
        dark = np.asarray(image.convert("L")) < 128
        assert not dark[:, -2:].any() and not dark[-2:].any()
        return dark.sum()

    assert ink() == 0
    assert 0 < ink(label="what the model saw") < ink(label="what the model saw " * 9)
    assert ink(caption="a line about this picture") > 0


@pytest.mark.parametrize("row", [0, 1])
def test_a_label_stands_above_its_row(clip, row):
    rows = [("label" if place == row else "", np.full_like(clip, 255)) for place in range(2)]
    image = clips.rows_picture(rows, columns=2)
    inked = np.flatnonzero((np.asarray(image.convert("L")) < 128).any(1)) / image.height
    assert inked.size and (inked.max() < 0.2 if row == 0 else 0.4 < inked.min() < inked.max() < 0.6)


def test_rows_video_decodes_with_every_frame(clip, tmp_path):
    path = tmp_path / "rows.mp4"
    clips.rows_video(path, [("clip", clip), ("inverse", 255 - clip)], 12, caption="both")
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 12
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 8
    rows = [("clip", clip[3:4]), ("inverse", 255 - clip[3:4])]
    expected = clips.rows_picture(rows, caption="both", frame_width=256)
    assert frames[3].shape == np.asarray(expected).shape
    assert error(frames[3], np.asarray(expected)) < 8
    assert error(frames[0], frames[7]) > error(frames[3], np.asarray(expected))


def test_an_interrupted_video_leaves_nothing(clip, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("vmae_keras.data.encode._encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clips.rows_video(tmp_path / "rows.mp4", [("clip", clip)], 12)
    assert list(tmp_path.iterdir()) == []


def test_loss_picture_draws_its_curves_and_leaves_pyplot_alone(tmp_path):
    script = (
        "import sys; from vmae_keras.pictures.clips import loss_picture\n"
        "assert 'matplotlib' not in sys.modules\n"
        "loss_picture(sys.argv[1], {'training': [(0, 1.2), (10, 0.7), (20, 0.5)],"
        " 'validation': [(0, 1.1), (20, 0.6)]})\n"
        "loss_picture(sys.argv[2], {'training': []})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert not {'keras', 'jax', 'torch', 'tensorflow'} & set(sys.modules)\n"
    )
    paths = [tmp_path / "loss.png", tmp_path / "empty.png"]
    subprocess.run([sys.executable, "-c", script, *map(str, paths)], check=True)
    drawn, empty = (np.asarray(Image.open(path).convert("RGB")) for path in paths)
    assert drawn.shape == empty.shape and (drawn != empty).any(2).sum() > 1000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda clip: patch_statistics.cut(clip[:7], TUBELET), r"shape=\(7, 48, 64, 3\)"),
        (
            lambda clip: patch_statistics.reconstruction(
                clip, [0], [1], np.zeros((1, 384)), TUBELET, "mean"
            ),
            "Received: 'mean'",
        ),
        (
            lambda clip: patch_statistics.reconstruction(
                clip, [0], [1], np.zeros((1, 1, 384)), TUBELET
            ),
            "without a batch axis",
        ),
        (lambda clip: clips.rows_picture([("a", clip), ("b", clip[:4])]), "all of one shape"),
        (lambda clip: clips.rows_picture([("a", clip / 255)]), "float64"),
    ],
)
def test_wrong_arguments_are_named(clip, call, message):
    with pytest.raises(ValueError, match=message):
        call(clip)
