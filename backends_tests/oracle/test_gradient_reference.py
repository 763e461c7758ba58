"""Tests of the oracle's derivatives against central differences and, if installed, torch's autograd."""

from __future__ import annotations

import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.oracle.small_model import CONFIGS, small_batch, small_config, weights_of
from spec import gradient_reference, reference
from spec import training_reference as training
from spec.gradient_reference import pretraining_gradients

clause = pytest.mark.clause
EVERY_OPTION = small_config(layer_scale=0.1, cosine_attention=True, decoder_depth=2)
KEEP = {
    "encoder_keep": np.array([[[1.0, 1.25], [0.0, 1.25]], [[2.0, 0.0], [2.0, 2.0]]]),
    "decoder_keep": np.array([[[0.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [0.0, 2.0]]]),
}
CASES = {
    **{name: (config, {}) for name, config in CONFIGS.items()},
    "pixels as target": (small_config(norm_pix=False), {}),
    "every option, drop-path": (EVERY_OPTION, KEEP),
}


@clause("LOSS-1", "LOSS-2", "TARGET-1", "DUAL-2", "DUAL-3", "BLOCK-1", "BLOCK-2", "BLOCK-3")
@clause("BLOCK-4", "BLOCK-5", "BLOCK-6", "BLOCK-7", "BLOCK-8", "EMBED-1", "ENC-2", "DEC-1", "DEC-2")
@pytest.mark.parametrize("weighted", [True, False], ids=["V2 loss", "V1 loss"])
@pytest.mark.parametrize(("config", "keep"), CASES.values(), ids=CASES)
def test_torch_agrees_on_the_loss_and_on_every_derivative(witness, config, keep, weighted):
    """LOSS-1, LOSS-2: Compare everything that these clauses depend on; measured difference 4.0e-14."""
    batch, weights = small_batch(), weights_of(config)
    if not weighted:
        del batch["weight"]
    loss, gradients = pretraining_gradients(config, weights, batch, **keep)
    model = witness(config, weights)
    wanted = model.loss(batch, reference.target(config, batch["video"], batch["decoded"]), **keep)
    assert_close(loss, wanted.item(), "float64")
    wanted.backward()
    expected = {name: tensor.grad.numpy() for name, tensor in model.weights.items()}
    assert gradients.keys() == expected.keys()
    for name, slope in expected.items():
        assert_close(gradients[name], slope, "float64.training", what=name)


@clause("LOSS-2", "DUAL-2", "DEC-1", "BLOCK-6", "BLOCK-8", "WEIGHT-1")
@pytest.mark.parametrize("config", [CONFIGS["plain"], EVERY_OPTION], ids=["plain", "every option"])
def test_finite_differences_agree_on_every_weight(config):
    """LOSS-2, DUAL-2: Check the entry of each weight with the largest gradient; measured error 1.5e-8."""
    batch, weights = small_batch(), weights_of(config)
    overlap = [np.intersect1d(*ids) for ids in zip(batch["visible"], batch["decoded"], strict=True)]
    assert any(len(tokens) for tokens in overlap), "no token enters the decoder twice"
    loss, gradients = pretraining_gradients(config, weights, batch)
    assert loss == reference.pretraining_loss(config, weights, batch)
    assert list(gradients) == list(weights)
    entries = [
        (name, np.unravel_index(np.abs(slopes).argmax(), slopes.shape))
        for name, slopes in gradients.items()
    ]
    steepest = np.array([gradients[name][index] for name, index in entries])
    assert (steepest != 0).all()
    differences = training.gradient(config, weights, batch, entries)
    assert_close(differences, steepest, "difference_quotient", np.abs(steepest))


@clause("LOSS-1")
def test_a_step_against_the_derivative_is_what_it_says():
    """LOSS-1: Step in a random direction through all weights at once, which shows weights counted twice."""
    config, batch, generator = EVERY_OPTION, small_batch(), np.random.default_rng(4)
    weights = weights_of(config)
    _, gradients = pretraining_gradients(config, weights, batch)
    towards = {name: generator.standard_normal(value.shape) for name, value in weights.items()}
    slope = sum((towards[name] * gradients[name]).sum() for name in weights)
    ends = [
        reference.pretraining_loss(
            config, {name: value + step * towards[name] for name, value in weights.items()}, batch
        )
        for step in (1e-6, -1e-6)
    ]
    assert_close((ends[0] - ends[1]) / 2e-6, slope, "difference_quotient")


@clause("BLOCK-7")
def test_a_dropped_branch_has_no_derivative():
    """BLOCK-7: Drop a branch for all clips, so that its weights, and only they, have no gradient."""
    config, batch = small_config(), small_batch()
    weights = weights_of(config)
    keep = np.ones((2, 2, 2))
    keep[1, 0] = 0
    _, gradients = pretraining_gradients(config, weights, batch, encoder_keep=keep)
    for name, slopes in gradients.items():
        dropped = name.startswith(("encoder/block_1/attention/", "encoder/block_1/norm1/"))
        assert slopes.any() != dropped, name


@clause("BLOCK-8")
def test_the_clamp_of_the_logit_scale():
    """BLOCK-8: Check that a log_scale above 4.6052 has no gradient, and one at or below it has."""
    config, batch = small_config(cosine_attention=True, heads=4), small_batch()
    name = "encoder/block_0/attention/log_scale"
    weights = weights_of(config)
    weights[name] = np.array([4.6053, 4.6051, 4.6052, 1.0]).reshape(4, 1, 1)
    _, gradients = pretraining_gradients(config, weights, batch)
    assert (gradients[name].ravel() != 0).tolist() == [False, True, True, True]


@clause("BLOCK-8")
def test_short_queries_are_divided_by_a_constant():
    """BLOCK-8: Divide by 1e-12 if |q| < 1e-12; the derivative is then equal in all directions."""
    slope = np.array([[3.0, 4.0]])
    long, short = np.array([[0.0, 2.0]]), np.array([[0.0, 1e-13]])
    assert_close(gradient_reference.unit(long, slope), [[1.5, 0.0]], "float64")
    np.testing.assert_allclose(gradient_reference.unit(short, slope), slope * 1e12)
    np.testing.assert_allclose(gradient_reference.unit(0 * short, slope), slope * 1e12)


@clause("LOSS-2")
def test_a_token_of_weight_zero_teaches_nothing():
    """LOSS-2: Check that the gradient of its prediction is zero, and no other gradient is."""
    config, batch = small_config(norm_pix=False), small_batch()
    clip, j = np.argwhere(batch["weight"] == 0)[0]
    batch["weight"][clip] = 1
    batch["weight"][clip, j] = 0
    weights = weights_of(config)
    predictions = reference.forward(config, weights, batch)
    target = reference.target(config, batch["video"], batch["decoded"])
    slope = gradient_reference.loss(predictions, target, batch["weight"])
    assert not slope[clip, j].any() and slope[batch["weight"] > 0].all()


@clause("WEIGHT-1")
def test_float32_weights_are_widened():
    """WEIGHT-1: Check that float32 weights get float64 derivatives."""
    config, batch = small_config(), small_batch()
    narrow = {name: value.astype(np.float32) for name, value in weights_of(config).items()}
    wide = {name: value.astype(np.float64) for name, value in narrow.items()}
    _, gradients = pretraining_gradients(config, narrow, batch)
    assert all(value.dtype == np.float64 for value in gradients.values())
    for name, slope in pretraining_gradients(config, wide, batch)[1].items():
        np.testing.assert_array_equal(gradients[name], slope, err_msg=name)
