"""Tests that every evaluation command accepts models of rectangular clips as well as square ones."""

import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.each_backend.test_classifier import random_classifier
from backends_tests.once.test_view_dataset import oracle_views
from spec import evaluation_reference, probe_reference, reference
from vmae_keras import VideoMAEConfig
from vmae_keras.data.files import VideoFile
from vmae_keras.data.frames import read_frames
from vmae_keras.data.skipped import SkippedFiles
from vmae_keras.data.synthetic import write_moving_shapes
from vmae_keras.evaluation import classification
from vmae_keras.evaluation.features import extract_features
from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
from vmae_keras.evaluation.prediction import predict
from vmae_keras.evaluation.probes.encoded import Encoding
from vmae_keras.evaluation.probes.probing import probe_features

CONFIG = VideoMAEConfig.variant("tiny", depth=1, height=16, width=24)
LABELS = ("up", "down", "left")
VIEWS = {"sampling": "dense", "stride": 2, "clips": 2, "crops": 3}


@pytest.fixture(scope="module")
def classifier():
    return random_classifier(CONFIG, labels=LABELS, classes=len(LABELS))


@pytest.fixture(scope="module")
def preset(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("preset")
    classifier[0].save_to_preset(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write two files of each class, none to be resized: half taller than the crop, or half wider."""
    folder = tmp_path_factory.mktemp("videos")
    return [
        VideoFile(str(path), label)
        for seed, size in enumerate(((24, 24), (16, 36)))
        for path, label in zip(
            write_moving_shapes(folder / str(seed), 3, seed=seed, frames=14, size=size),
            LABELS,
            strict=True,
        )
    ]


@pytest.fixture
def skipped(tmp_path):
    return SkippedFiles(tmp_path / "skipped.jsonl")


@pytest.mark.clause("EVAL-4", "EVAL-5")
def test_evaluation_and_prediction_give_the_oracles_probabilities(classifier, files, skipped):
    model, weights = classifier
    found = classification.evaluate(model, files, labels=LABELS, **VIEWS, skipped=skipped)
    assert found.videos == len(files)
    for file, result in zip(files, found.results, strict=True):
        views = np.rint(oracle_views(file.path, CONFIG, **VIEWS)).astype("uint8")
        expected = evaluation_reference.average_views(reference.classify(CONFIG, weights, views))
        best = np.argsort(-expected)
        assert result.predicted == tuple(best)
        assert_close(result.probabilities, expected[best], "class_probability")
    alone = predict(model, files[-1].path, **VIEWS, skipped=skipped)
    assert_close(alone[files[-1].path][best], result.probabilities, "class_probability")


@pytest.mark.clause("FEATURE-3", "FEATURE-4", "EVAL-5")
def test_features_are_of_the_middle_of_each_frame(classifier, preset, files, skipped, tmp_path):
    encoder = FrozenEncoder.from_preset(preset)
    found = extract_features(encoder, files, tmp_path / "features", skipped=skipped, stride=3)
    for file, (y, x) in ((files[0], (4, 0)), (files[-1], (0, 6))):
        video = read_frames(file.path, np.arange)[:, y : y + 16, x : x + 24]
        windows = video[probe_reference.windows(len(video), CONFIG.frames, 1, 3)]
        named = reference.classify(CONFIG, classifier[1], windows, named=True)
        assert_close(np.load(found.files[file.path]), named["fc_norm"], "features")


def test_a_probe_runs(preset, files, skipped, tmp_path):
    encoder = FrozenEncoder.from_preset(preset)
    sets = {"train": files[:3] * 2, "test": files[3:]}
    encoding = Encoding(encoder, sets, tmp_path / "encoded", **VIEWS)
    encoding.run(skipped)
    assert probe_features(encoding, kind="knn", held_out=0.5).videos == 3
