"""Tests of the features of windows: against the oracle's, kills, names, broken files, and refusals."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from backends_tests.compare import assert_close
from backends_tests.each_backend.test_classifier import random_classifier
from spec import probe_reference, reference
from vmae_keras import VideoMAEConfig, backend
from vmae_keras.data.files import VideoFile
from vmae_keras.data.frames import read_frames
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.evaluation.features import extract_features, feature_names
from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
from vmae_keras.runs.run import RunError

CONFIG = VideoMAEConfig.variant("tiny", depth=1, width=16)
STEPS = {"stride": 3, "sampling_stride": 2}
BATCH = 4


@pytest.fixture(scope="module")
def presets(tmp_path_factory):
    """Write presets of a classifier with mean and one with first-token pooling; return the weights too."""
    made = {}
    for pooling in ("mean", "first"):
        model, weights = random_classifier(CONFIG, pooling)
        folder = tmp_path_factory.mktemp("presets") / pooling
        model.save_to_preset(folder)
        made[pooling] = folder, weights
    return made


@pytest.fixture(scope="module")
def encoder(presets):
    return FrozenEncoder.from_preset(presets["mean"][0])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write a video of 26 frames, one of 3, and a file that is not a video."""
    folder = tmp_path_factory.mktemp("videos")
    # Not resized: values that round to either of two levels would hide differences of the model.
    paths = [
        write_moving_shapes(folder / name, 1, frames=frames, size=(16, 24))[0].rename(
            folder / name / "clip.mp4"
        )
        for name, frames in (("long", 26), ("short", 3))
    ]
    (folder / "broken.mp4").write_bytes(b"no video")
    return [VideoFile(str(path)) for path in [*paths, folder / "broken.mp4"]]


@pytest.fixture
def run(encoder, files, tmp_path):
    def extracted(encoder=encoder, files=files, folder=tmp_path / "features", **changes):
        settings = {
            "skipped": SkippedFiles(tmp_path / "skipped.jsonl"),
            "batch_windows": BATCH,
            **STEPS,
            **changes,
        }
        return extract_features(encoder, files, folder, **settings)

    return extracted


def oracle(path, weights, name, pooling):
    """Return the oracle's output `name` for each window of the frames' centre."""
    video = read_frames(path, np.arange)[:, :, 4:20]
    chosen = probe_reference.windows(len(video), CONFIG.frames, *reversed(STEPS.values()))
    named = reference.classify(CONFIG, weights, video[chosen], pooling=pooling, named=True)
    return named[name]


@pytest.mark.clause("FEATURE-1", "FEATURE-3", "FEATURE-4", "INPUT-2")
@pytest.mark.parametrize(
    ("stored", "pooling", "name"),
    [
        ("mean", "mean", "fc_norm"),
        ("first", "mean", "encoder/norm"),
        ("first", "first", "encoder/norm"),
        ("first", None, "encoder/norm"),
    ],
)
def test_features_equal_the_oracles(presets, run, files, monkeypatch, stored, pooling, name):
    shapes = []
    predict = backend.predict

    def recorded(model, batch):
        shapes.append(batch.shape)
        return predict(model, batch)

    monkeypatch.setattr(backend, "predict", recorded)
    preset, weights = presets[stored]
    found = run(FrozenEncoder.from_preset(preset, pooling), format="safetensors")
    for file in files[:2]:
        expected = oracle(file.path, weights, name, stored)
        if stored == "first" and pooling == "mean":
            expected = expected.mean(1)
        elif pooling == "first":
            expected = expected[:, 0]
        got = load_file(found.files[file.path])["features"]
        assert got.dtype == np.float32
        assert_close(got, expected, "features")
    # Seven windows and one. Batches are padded, so that JAX compiles once.
    assert shapes == [(BATCH, 4, 16, 16, 3)] * 3


@pytest.mark.clause("FEATURE-2")
def test_what_is_written(run, files, tmp_path):
    found, other = run(), run(folder=tmp_path / "other", format="safetensors")
    assert [path.name for path in found.files.values()] == ["clip.npy", "clip.npy"]
    assert found.skipped == {files[2].path: "Invalid data found when processing input"}
    for (path, file), tensors in zip(found.files.items(), other.files.values(), strict=True):
        assert file.parent.name in path
        features, notes = np.load(file), json.loads(file.with_suffix(".json").read_text())
        count = len(read_frames(path, np.arange))
        expected = probe_reference.window_times(count, CONFIG.frames, 2, 3, 12)
        np.testing.assert_allclose(notes["times"], expected)
        assert notes["video"] == path and notes["ticks_per_second"] == pytest.approx(12)
        tensors = load_file(tensors)
        np.testing.assert_array_equal(tensors["features"], features)
        np.testing.assert_array_equal(tensors["times"], notes["times"])
        assert len(features) == len(expected)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_a_killed_extraction_goes_on_with_the_video_where_it_was(run, tmp_path, format):
    whole = run(folder=tmp_path / "whole", format=format)
    for last in (1, 3):  # within the first video, and after it
        calls = []

        def kill(done, total, calls=calls, last=last):
            calls.append(done)
            if len(calls) == last:
                raise Killed

        folder = tmp_path / str(last)
        with pytest.raises(Killed):
            run(folder=folder, format=format, progress=kill)
        names = {path.name for path in folder.rglob("clip.*")}
        assert names <= {"clip.npy", "clip.json", "clip.safetensors"}
        calls.clear()
        again = run(folder=folder, format=format, progress=lambda *counts: calls.append(counts))  # noqa: B023
        assert calls[-1][1] == (3 if last == 1 else 2)  # videos; the broken one is retried
        for one, other in zip(whole.files.values(), again.files.values(), strict=True):
            assert one.read_bytes() == other.read_bytes()


def test_nothing_is_left_to_run_after_the_last_video(run, files, monkeypatch):
    first = run()
    monkeypatch.setattr(backend, "predict", None)
    assert run() == first


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"stride": 4}, "stride"),
        ({"sampling_stride": 1}, "sampling_stride"),
        ({"crop": False}, "crop"),
        ({"format": "safetensors"}, "format"),
        ({"encoder": "first"}, "model, pooling"),
        ({"encoder": "mean"}, "model"),
    ],
)
def test_features_of_another_extraction_are_not_mixed_in(presets, run, change, differing):
    run()
    if "encoder" in change:
        pooling = change["encoder"]
        change = {"encoder": FrozenEncoder.from_preset(presets[pooling][0], pooling)}
        weight = change["encoder"].encoder.weights[0]
        weight.assign(weight + 1.0)  # all weights are frozen, so none are trainable
    message = f"features of another extraction. Received: another {differing}. Give another"
    with pytest.raises(RunError, match=message):
        run(**change)


def test_features_of_another_video_are_not_taken_for_its_own(run, files, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    one = tmp_path / "elsewhere" / "clip.mp4"
    one.write_bytes((tmp_path / files[0].path).read_bytes())
    run(files=files[:1])
    with pytest.raises(
        RunError, match=r"clip.npy holds the features of another video. Received: .*long"
    ):
        run(files=[VideoFile(str(one))])


def test_names_do_not_collide():
    names = {
        "v/a/clip.mp4": "a/clip",
        "v/b/clip.mp4": "b/clip",
        "v/b/clip.avi.mp4": "b/clip.avi",
        "v/c/one.mp4": "c/one.mp4",
        "v/c/one.avi": "c/one.avi",
        "v/c/ONE.webm": "c/ONE.webm",
        "v/d/x.mp4": "d/x",
        "v/d/x.mp4.avi": "d/x.mp4.avi",
        "v/features.mp4": "features.mp4",
    }
    assert feature_names(list(names)) == names
    assert feature_names(["v/a/clip.mp4"]) == {"v/a/clip.mp4": "clip"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "hdf5"}, "`format` must be one of npy, safetensors"),
        ({"batch_windows": 0}, "`batch_windows` must be at least 1"),
        ({"stride": 0}, "`stride` must be at least 1"),
        ({"files": []}, "at least one video"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(run, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(**change)
    assert not (tmp_path / "features").exists()
