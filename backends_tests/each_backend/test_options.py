"""The options of other implementations' models, against the oracle."""

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.each_backend.test_classifier import random_classifier, random_video
from backends_tests.support import by_path, numpy, random_batch, with_random_weights
from spec import reference, training_reference
from vmae_keras import VideoMAE, VideoMAEConfig
from vmae_keras.config import ACTIVATIONS
from vmae_keras.layers import ACTIVATIONS as FUNCTIONS
from vmae_keras.training.optimizer import decayed

CONFIG = VideoMAEConfig.variant("tiny", depth=1)
OPTIONS = {
    "tanh GELU": {"activation": "gelu_tanh"},
    "no biases of queries and values": {"query_value_bias": False},
    "no encoder norm": {"encoder_norm": False},
    "own epsilon of the last norm": {"layer_norm_epsilon": 1e-12, "last_norm_epsilon": 0.1},
    "positions of another grid": {"height": 32, "position_grid": (2, 4, 6)},
    "learned positions": {"learned_positions": True},
}
CLAUSES = ("OPTION-1", "OPTION-2", "OPTION-3", "OPTION-4", "POS-4", "POS-5")


@pytest.mark.clause(*CLAUSES)
@pytest.mark.parametrize("name", OPTIONS)
def test_predictions_equal_the_oracle(name):
    model, weights = with_random_weights(CONFIG.replace(**OPTIONS[name]))
    batch = random_batch(model.config, decoder_ratio=0.5)
    expected = reference.forward(model.config, weights, batch)
    assert_close(model.predict(batch, verbose=0), expected, "prediction")


@pytest.mark.clause(*CLAUSES)
@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "no encoder norm"])
def test_logits_equal_the_oracle(name):
    model, weights = random_classifier(CONFIG.replace(**OPTIONS[name]))
    video = random_video(model.config)
    expected = reference.classify(model.config, weights, video)
    assert_close(model.predict(video, verbose=0), expected, "logits")


@pytest.mark.clause("OPTION-1")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_the_oracle(name):
    x = np.linspace(-9, 9, 181, dtype="float32")
    got = numpy(FUNCTIONS[name](keras.ops.convert_to_tensor(x)))
    assert_close(got, reference.activate(x.astype("float64"), name), "float32")


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
    # At one deviation of .02: the largest of 1536 draws come near it, and none goes beyond.
    assert kind == "truncated_normal"
    assert 0.98 * deviation < np.abs(values).max() <= np.float32(deviation)
    assert by_path(classifier).keys() == (
        training_reference.classifier_weight_shapes(config, 5).keys()
    )
    start = type(classifier)(config, 5)
    spread = numpy(by_path(start)[name].value).std()
    assert training_reference.classifier_initialisation(config, 5)[name] == ("normal", 0.02)
    assert spread == pytest.approx(0.02, rel=0.1)  # of 1536 draws
    assert decayed([name, "head/kernel"]) == [False, True]


@pytest.mark.clause("POS-4")
def test_an_encoder_of_another_size_keeps_its_places():
    """With `position_grid`, weights of small clips load into a model for larger ones."""
    small, weights = with_random_weights(CONFIG)
    large, _ = random_classifier(CONFIG.replace(height=32, position_grid=small.config.grid))
    large.load_encoder(small)
    np.testing.assert_array_equal(
        numpy(large.tubelet_embedding.kernel), weights["tubelet_embedding/kernel"]
    )
