"""Tests that runs, presets and `.keras` files of version 0.1.0, before the modules moved, still load.

That version wrote `backends_tests/earlier_files` on PyTorch. `expected.npz` holds a batch and the outputs
of its models.
"""

from pathlib import Path

import numpy as np
import pytest

from backends_tests.compare import assert_close
from vmae_keras import VideoClassifier, load
from vmae_keras.runs.run import Run
from vmae_keras.runs.settings import FineTuningSettings, PretrainingSettings

FILES = Path(__file__).resolve().parents[1] / "earlier_files"


@pytest.fixture(scope="module")
def expected():
    with np.load(FILES / "expected.npz") as file:
        return dict(file)


@pytest.mark.clause("WEIGHT-3")
@pytest.mark.parametrize("name", ["run", "preset", "model.keras"])
def test_a_pretrained_model_predicts_as_it_did(name, expected):
    batch = {key: expected[key] for key in ("video", "visible", "decoded")}
    found = load(FILES / name).predict(batch, verbose=0)
    assert_close(found, expected["predictions"], "prediction")


@pytest.mark.clause("WEIGHT-3")
def test_a_classifier_predicts_as_it_did(expected):
    model = VideoClassifier.from_preset(FILES / "tuned")
    assert model.labels == ("a", "b")
    assert_close(model.predict(expected["video"], verbose=0), expected["logits"], "logits")


def test_settings_are_read():
    pretraining, tuning = (Run(FILES / name).settings() for name in ("run", "tuned"))
    assert isinstance(pretraining, PretrainingSettings) and pretraining.recipe.epochs == 2
    assert isinstance(tuning, FineTuningSettings) and tuning.config == pretraining.config.replace(
        drop_path=tuning.recipe.drop_path
    )
    assert [row["step"] for row in Run(FILES / "run").rows()] == [2, 4]
