"""Tests of this library's model against the oracle that are not part of `test_conformance.py`."""

import math

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.support import numpy, random_batch, with_random_weights
from spec import reference
from vmae_keras import VideoMAEConfig


@pytest.mark.clause("TUBE-1", "POS-1", "ENC-1", "DEC-1", "DEC-3", "TARGET-1", "LOSS-1")
def test_a_clip_of_1568_tokens_equals_the_oracle():
    """Check the published size in a narrow model. Its ids do not fit into 8 bits."""
    config = VideoMAEConfig(
        dim=24,
        depth=1,
        heads=2,
        mlp_dim=32,
        decoder_dim=24,
        decoder_depth=1,
        decoder_heads=2,
        decoder_mlp_dim=32,
    )
    assert math.prod(config.grid) == 1568
    model, weights = with_random_weights(config)
    batch = random_batch(config, clips=1, ratio=0.9)
    model.compile("sgd")
    assert_close(
        model.test_on_batch(batch), reference.pretraining_loss(config, weights, batch), "loss"
    )


@pytest.mark.clause("TARGET-4")
def test_target_of_one_colour_is_zero():
    """Check for exact zeros: the rounding of a mean would be magnified by an epsilon of 1e-6."""
    config = VideoMAEConfig.variant("tiny", height=32, width=32, tubelet=(2, 16, 16))
    model, _ = with_random_weights(config)
    batch = random_batch(config, clips=256)
    batch["video"][:] = np.arange(256).reshape(-1, 1, 1, 1, 1)
    np.testing.assert_array_equal(numpy(model.target(batch)), 0)


@pytest.mark.clause("DUAL-3")
def test_weight_is_derived_when_absent():
    config = VideoMAEConfig.variant("tiny", frames=8)
    model, _ = with_random_weights(config)
    batch = random_batch(config, decoder_ratio=0.5)
    without = {name: value for name, value in batch.items() if name != "weight"}
    assert 0 < batch["weight"].sum() < batch["weight"].size
    np.testing.assert_array_equal(numpy(model.weight(without)), batch["weight"])


@pytest.mark.clause("LOSS-3")
def test_target_and_loss_stay_float32_under_mixed_precision():
    config = VideoMAEConfig.variant("tiny")
    model, _ = with_random_weights(config, dtype="mixed_bfloat16")
    batch = random_batch(config, video="float32")
    expected = reference.target(config, batch["video"], batch["decoded"])
    assert_close(numpy(model.target(batch)), expected, "target")
    # Widen first, which is exact; `predict` does not return bfloat16 on every backend.
    predictions = np.asarray(model.predict_on_batch(batch), "float32")
    narrow = keras.ops.cast(predictions, "bfloat16")
    np.testing.assert_array_equal(numpy(keras.ops.cast(narrow, "float32")), predictions)
    model.compile("sgd")
    got = float(numpy(model.compute_loss(x=batch, y_pred=narrow)))
    # bfloat16 numbers are exact in float64. bfloat16 arithmetic would give an error near 1e-2.
    assert_close(got, reference.loss(predictions.astype("float64"), expected), "loss")
