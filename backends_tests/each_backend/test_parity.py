"""The model against the float64 oracle: predictions, target and loss, each on its own."""

import keras
import numpy as np
import pytest

from backends_tests import tolerances
from backends_tests.support import numpy, random_batch, with_random_weights
from spec import reference
from vmae_keras import VideoMAEConfig

CASES = {
    "v1": ({}, {}),
    "v2": ({"frames": 8}, {"decoder_ratio": 0.5}),
    "v2 odd grid": ({"height": 20, "width": 12, "frames": 6}, {"decoder_ratio": 0.25}),
    "random mask": ({}, {"kind": "random"}),
    "frame mask": ({"frames": 8}, {"kind": "frame"}),
    "agnostic mask, one frame per tubelet": ({"tubelet": (1, 8, 4)}, {"kind": "agnostic"}),
    "raw pixels, one channel": ({"channels": 1, "norm_pix": False}, {}),
    "float video": ({}, {"video": "float32"}),
    "layer scale": ({"layer_scale": 0.1}, {}),
    "cosine attention": ({"cosine_attention": True}, {}),
    "other epsilon": ({"layer_norm_epsilon": 1e-2}, {}),
}


def setup(name, seed=0):
    changes, masking = CASES[name]
    config = VideoMAEConfig.variant("tiny", **changes)
    model, weights = with_random_weights(config, seed)
    return config, model, weights, random_batch(config, seed=seed, **masking)


@pytest.mark.clause(
    *(
        "TUBE-1",
        "TUBE-2",
        "POS-1",
        "EMBED-1",
        "EMBED-2",
        "BLOCK-1",
        "BLOCK-2",
        "BLOCK-3",
        "BLOCK-4",
    ),
    *("BLOCK-5", "BLOCK-6", "BLOCK-8", "ENC-2", "DEC-1", "DEC-2", "DUAL-2", "INPUT-1", "INPUT-2"),
)
@pytest.mark.parametrize("name", CASES)
def test_predictions_equal_the_oracle(name):
    config, model, weights, batch = setup(name)
    expected = reference.forward(config, weights, batch)
    got = numpy(model(batch))
    assert got.shape == expected.shape
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert error < tolerances.PREDICTION


@pytest.mark.clause("TARGET-1", "TARGET-2", "TARGET-3")
@pytest.mark.parametrize("name", CASES)
def test_target_equals_the_oracle(name):
    config, model, _, batch = setup(name)
    expected = reference.target(config, batch["video"], batch["decoded"])
    assert np.abs(numpy(model.target(batch)) - expected).max() < tolerances.TARGET


@pytest.mark.clause("TARGET-4")
def test_target_of_one_colour_is_finite():
    _, model, _, batch = setup("v1")
    batch["video"][:] = 77
    np.testing.assert_array_equal(numpy(model.target(batch)), 0)


@pytest.mark.clause("LOSS-1", "LOSS-2")
@pytest.mark.parametrize("name", ["v1", "v2", "v2 odd grid", "raw pixels, one channel"])
def test_loss_equals_the_oracle(name):
    config, model, weights, batch = setup(name)
    model.compile("sgd")
    expected = reference.pretraining_loss(config, weights, batch)
    assert model.evaluate(batch, verbose=0) == pytest.approx(expected, rel=tolerances.LOSS)


@pytest.mark.clause("DUAL-3")
def test_weight_is_derived_when_absent():
    _, model, _, batch = setup("v2")
    without = {name: value for name, value in batch.items() if name != "weight"}
    assert 0 < batch["weight"].sum() < batch["weight"].size
    np.testing.assert_array_equal(numpy(model.weight(without)), batch["weight"])


@pytest.mark.clause("LOSS-2")
def test_loss_ignores_what_the_encoder_saw():
    _, model, _, batch = setup("v2")
    model.compile("sgd")
    before = model.evaluate(batch, verbose=0)
    batch["weight"] = np.ones_like(batch["weight"])
    assert abs(model.evaluate(batch, verbose=0) - before) > 1e-3 * before


@pytest.mark.clause("ENC-1")
def test_hidden_pixels_do_not_reach_the_predictions():
    config, model, _, batch = setup("v2")
    before = numpy(model(batch))
    tokens = reference.tubelets(batch["video"], config.tubelet)
    hidden = np.ones(tokens.shape[:2], bool)
    np.put_along_axis(hidden, batch["visible"], False, axis=1)
    tokens[hidden] = 255 - tokens[hidden]
    other = reference.untubelets(tokens, config.grid, config.tubelet)
    np.testing.assert_array_equal(numpy(model({**batch, "video": other})), before)
    tokens = reference.tubelets(batch["video"], config.tubelet)
    tokens[0, batch["visible"][0, 0]] ^= 255
    other = reference.untubelets(tokens, config.grid, config.tubelet)
    assert np.abs(numpy(model({**batch, "video": other}))[0] - before[0]).max() > 1e-3


@pytest.mark.clause("DEC-3")
def test_predictions_follow_the_order_of_decoded():
    _, model, _, batch = setup("v1")
    order = np.random.default_rng(0).permutation(batch["decoded"].shape[1])
    shuffled = {**batch, "decoded": batch["decoded"][:, order]}
    np.testing.assert_allclose(
        numpy(model(shuffled)), numpy(model(batch))[:, order], atol=tolerances.PREDICTION * 10
    )


@pytest.mark.clause("LOSS-3")
def test_target_stays_float32_under_mixed_precision():
    config = VideoMAEConfig.variant("tiny")
    model, _ = with_random_weights(config, dtype="mixed_bfloat16")
    batch = random_batch(config, video="float32")
    expected = reference.target(config, batch["video"], batch["decoded"])
    assert np.abs(numpy(model.target(batch)) - expected).max() < tolerances.TARGET
    predictions = model(batch)
    assert "bfloat16" in str(predictions.dtype)
    model.compile("sgd")
    got = float(numpy(model.compute_loss(x=batch, y_pred=predictions)))
    # bfloat16 numbers are exact in float64; an error in bfloat16 arithmetic would be near 1e-2.
    wide = numpy(keras.ops.cast(predictions, "float32")).astype("float64")
    assert got == pytest.approx(reference.loss(wide, expected), rel=tolerances.LOSS)
