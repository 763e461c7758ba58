"""Tests of drawn clips: deterministic, flat nowhere, moving; files complete or absent."""

import dataclasses
import math

import av
import numpy as np
import pytest

from vmae_keras.data import encode, synthetic
from vmae_keras.data.random_streams import Purpose, generator
from vmae_keras.data.synthetic import LABELLED, random_motion, write_labelled_motions


def decode(path):
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(frames), rate


def deviations(video, patch=8):
    """Return the deviation of every tubelet (2, patch, patch) and channel: (N, 3)."""
    t, h, w = video.shape[0] // 2, video.shape[1] // patch, video.shape[2] // patch
    cells = video.reshape(t, 2, h, patch, w, patch, 3).transpose(0, 2, 4, 1, 3, 5, 6)
    return cells.reshape(t * h * w, -1, 3).std(1, ddof=1)


def test_a_clip_depends_on_its_generator_alone():
    first, same, other = (
        synthetic.moving_shapes(np.random.default_rng(seed), 6, (48, 64)) for seed in (3, 3, 4)
    )
    assert first.shape == (6, 48, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, same)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize("shape", synthetic.SHAPES)
@pytest.mark.parametrize("motion", synthetic.MOTIONS)
def test_the_shape_is_bright_large_and_moves(shape, motion):
    scene = synthetic.random_scene(np.random.default_rng(0))
    scene = dataclasses.replace(scene, shape=shape, motion=motion, radius=0.2)
    video = synthetic.draw_scene(scene, 12, (80, 80)).astype(int)
    white = (video.min(3) > 150).sum((1, 2))  # background channels are never all high
    assert (white > 60).all()
    assert ((np.abs(np.diff(video, axis=0)).max(3) > 8).sum((1, 2)) > 30).all()


def test_the_disc_has_the_stated_place_and_size(monkeypatch):
    scene = dataclasses.replace(
        synthetic.random_scene(np.random.default_rng(0)),
        shape="disc",
        motion="bounce",
        radius=0.25,
        position=(0.0, 1.0),
        speed=0.0,
    )
    drawn = synthetic.draw_scene(scene, 1, (64, 80))[0]
    monkeypatch.setattr(synthetic, "_distance", lambda shape, right, *_: np.full_like(right, 9))
    touched = np.argwhere((drawn != synthetic.draw_scene(scene, 1, (64, 80))[0]).any(2))
    np.testing.assert_allclose(touched.min(0), [32, 0], atol=1)
    np.testing.assert_allclose(touched.max(0), [63, 31], atol=1)
    assert abs(len(touched) - np.pi * 16**2) < 60


def test_hardly_any_tubelet_of_the_files_is_flat(tmp_path):
    paths = synthetic.write_moving_shapes(tmp_path, 6, seed=1, size=(64, 64))
    flat = np.concatenate([deviations(decode(path)[0]) < 4 for path in paths])
    assert flat.mean() < 0.01


def test_files_hold_the_drawn_clips(tmp_path):
    paths = synthetic.write_moving_shapes(tmp_path, 2, seed=7, frames=5, size=(48, 64), rate=10)
    assert sorted(tmp_path.iterdir()) == sorted(paths) and len(set(paths)) == 2
    for index, path in enumerate(paths):
        video, rate = decode(path)
        drawn = synthetic.moving_shapes(generator(7, Purpose.SYNTHETIC_CLIP, index), 5, (48, 64))
        assert video.shape == drawn.shape and rate == 10
        assert np.abs(video.astype(int) - drawn).mean() < 2


def test_existing_files_are_kept_and_more_added(tmp_path):
    (first,) = synthetic.write_moving_shapes(tmp_path, 1, frames=2)
    first.write_bytes(b"kept")
    paths = synthetic.write_moving_shapes(tmp_path, 2, frames=2)
    assert paths[0] == first and first.read_bytes() == b"kept"
    assert len(decode(paths[1])[0]) == 2
    assert synthetic.write_moving_shapes(tmp_path, 1, frames=4)[0] != first


def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch):
    write = encode._encode

    def interrupted(path, video, *rest):
        write(path, video, *rest)
        assert not list(tmp_path.glob("*.mp4"))
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthetic.write_moving_shapes(tmp_path, 1, frames=2)
    assert list(tmp_path.iterdir()) == []


def test_mpeg4_where_libx264_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(encode.av, "codecs_available", {"mpeg4"})
    (path,) = synthetic.write_moving_shapes(tmp_path, 1, frames=4)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    drawn = synthetic.moving_shapes(generator(0, Purpose.SYNTHETIC_CLIP, 0), 4, (80, 80))
    assert np.abs(decode(path)[0].astype(int) - drawn).mean() < 4


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((2, 16, 16, 3), "float32"), "dtype=float32"),
        (np.zeros((0, 16, 16, 3), "uint8"), r"shape=\(0, 16, 16, 3\)"),
        (np.zeros((2, 16, 17, 3), "uint8"), "Use 16 x 16"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, video, message):
    with pytest.raises(ValueError, match=message):
        encode.write_video(tmp_path / "clip.mp4", video, 12)
    assert list(tmp_path.iterdir()) == []


def test_too_small_a_picture_is_refused():
    with pytest.raises(ValueError, match=r"Received: frames=4, size=\(8, 64\)"):
        synthetic.moving_shapes(np.random.default_rng(0), 4, (8, 64))


def test_a_motions_label_decides_the_motion_and_nothing_else(tmp_path):
    paths = write_labelled_motions(tmp_path, 13, frames=8, size=(32, 32))
    assert [path.parent.name for path in paths[:7]] == [*LABELLED, "horizontal"]
    assert sum(1 for _ in tmp_path.rglob("*.mp4")) == 13
    assert len({path.read_bytes() for path in paths}) == 13
    scenes = {
        label: [random_motion(np.random.default_rng(seed), label) for seed in range(200)]
        for label in LABELLED
    }
    for label, (motion, direction, clockwise) in LABELLED.items():
        for scene in scenes[label]:
            assert (scene.motion, scene.clockwise) == (motion, clockwise)
            # In either direction along the line, and close to it.
            turned = abs((scene.direction - direction + math.pi / 2) % math.pi - math.pi / 2)
            assert motion == "circle" or turned <= 0.3
    # The other draws do not depend on the label.
    for name in ("shape", "bottom"):
        shares = [
            np.mean(
                [getattr(scene, name) == getattr(scenes[label][0], name) for scene in scenes[label]]
            )
            for label in LABELLED
        ]
        assert max(shares) < 0.5


def test_the_labels_of_motions_are_six_unlike_ones():
    assert len(set(LABELLED.values())) == len(LABELLED) == 6
