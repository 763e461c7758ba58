"""Tests of options from other implementations' models. `test_drawn_models.py` compares their outputs."""

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.each_backend.test_classifier import random_classifier
from backends_tests.support import by_path, numpy, with_random_weights
from spec import layers_reference as layers
from spec import training_reference
from vmae_keras import VideoMAE, VideoMAEConfig
from vmae_keras.config import ACTIVATIONS
from vmae_keras.layers import ACTIVATIONS as FUNCTIONS
from vmae_keras.training.optimizer import decayed

CONFIG = VideoMAEConfig.variant("tiny", depth=1)


@pytest.mark.clause("OPTION-1")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_the_oracle(name):
    x = np.linspace(-9, 9, 181, dtype="float32")
    got = numpy(FUNCTIONS[name](keras.ops.convert_to_tensor(x)))
    assert_close(got, layers.activate(x.astype("float64"), name), "float32")


def test_every_activation_has_a_function():
    assert FUNCTIONS.keys() == set(ACTIVATIONS)
    with pytest.raises(ValueError, match="activation='swiglu'"):
        CONFIG.replace(activation="swiglu")


@pytest.mark.clause("POS-5", "INIT-5", "OPT-2")
def test_learned_positions_are_a_weight_that_does_not_decay():
    keras.utils.set_random_seed(0)
    config = CONFIG.replace(learned_positions=True)
    name = "tubelet_embedding/positions"
    pretraining, (classifier, _) = by_path(VideoMAE(config)), random_classifier(config)
    assert training_reference.weight_shapes(config)[name] == tuple(pretraining[name].shape)
    values = numpy(pretraining[name].value)
    kind, deviation = training_reference.initialisation(config)[name]
    # With a deviation of .02, the largest of 1536 draws come near the limit and none exceeds it.
    assert kind == "truncated_normal"
    assert 0.98 * deviation < np.abs(values).max() <= np.float32(deviation)
    assert by_path(classifier).keys() == (
        training_reference.classifier_weight_shapes(config, 5).keys()
    )
    start = type(classifier)(config, 5)
    spread = numpy(by_path(start)[name].value).std()
    assert training_reference.classifier_initialisation(config, 5)[name] == ("normal", 0.02)
    assert spread == pytest.approx(0.02, rel=0.1)  # 1536 draws
    assert decayed([name, "head/kernel"]) == [False, True]


@pytest.mark.clause("POS-4")
def test_an_encoder_of_another_size_keeps_its_places():
    """Check that `position_grid` loads the weights of small clips into a model for larger ones."""
    small, weights = with_random_weights(CONFIG)
    large, _ = random_classifier(CONFIG.replace(height=32, position_grid=small.config.grid))
    large.load_encoder(small)
    np.testing.assert_array_equal(
        numpy(large.tubelet_embedding.kernel), weights["tubelet_embedding/kernel"]
    )
