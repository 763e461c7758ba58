"""Tests of the oracle's options from other implementations' models: against torch, limits, and by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from backends_tests.compare import assert_close
from backends_tests.oracle.small_model import small_config
from spec import layers_reference as layers
from spec import position_reference, reference, training_reference
from spec.conformance.cases import Case
from spec.gradient_reference import activation, pretraining_gradients

X = np.linspace(-9, 9, 181)
TORCH = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
    "relu2": lambda x: functional.relu(x).square(),
    "relu6": functional.relu6,
    "leaky_relu": functional.leaky_relu,
    "silu": functional.silu,
    "mish": functional.mish,
    "hard_swish": functional.hardswish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "linear": lambda x: x,
}


@pytest.mark.clause("OPTION-1")
@pytest.mark.parametrize("name", TORCH)
def test_activations_are_torchs(name):
    expected = TORCH[name](torch.tensor(X, dtype=torch.float64)).numpy()
    assert_close(layers.activate(X, name), expected, "float64")


@pytest.mark.clause("OPTION-1")
@pytest.mark.parametrize("name", TORCH)
def test_derivatives_of_activations_are_torchs(name):
    x = X + 0.01  # avoid the kinks
    inputs = torch.tensor(x, requires_grad=True)
    (expected,) = torch.autograd.grad(TORCH[name](inputs).sum(), inputs)
    assert_close(activation(x, name, np.ones_like(x)), expected, "difference_quotient")


@pytest.mark.clause("OPTION-1")
def test_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="Received: 'swiglu'"):
        layers.activate(X, "swiglu")


def case(**changes):
    return Case("options", small_config(**changes))


@pytest.mark.clause("OPTION-2")
def test_no_biases_are_biases_of_zero():
    without = case(query_value_bias=False)
    with_zeros = {
        name: without.weights.get(name, np.zeros(shape))
        for name, shape in training_reference.weight_shapes(small_config()).items()
    }
    assert len(with_zeros) > len(without.weights)
    np.testing.assert_array_equal(
        reference.forward(without.config, without.weights, without.batch),
        reference.forward(small_config(), with_zeros, without.batch),
    )


@pytest.mark.clause("OPTION-3")
def test_without_its_norm_the_last_block_is_what_the_bridge_reads():
    one = case(encoder_norm=False)
    out = reference.forward(one.config, one.weights, one.batch, named=True)
    last = out[f"encoder/block_{one.config.depth - 1}"]
    np.testing.assert_array_equal(out["bridge"], last @ one.weights["bridge/kernel"])
    assert "encoder/norm/gamma" not in one.weights


@pytest.mark.clause("OPTION-4")
def test_two_norms_have_an_epsilon_of_their_own():
    config = small_config(layer_norm_epsilon=0.5, last_norm_epsilon=0.25)
    found = {
        path: layers.norm_epsilon(path, config)
        for path in (
            "encoder/block_0/norm1",
            "encoder/norm",
            "decoder/block_1/norm2",
            "decoder/norm",
            "fc_norm",
        )
    }
    assert [path for path, epsilon in found.items() if epsilon == 0.25] == [
        "decoder/norm",
        "fc_norm",
    ]
    assert set(found.values()) == {0.5, 0.25}
    plain = small_config(layer_norm_epsilon=0.5)
    assert layers.norm_epsilon("decoder/norm", plain) == 0.5


@pytest.mark.clause("POS-4")
def test_a_fixed_table_keeps_its_places_on_a_finer_grid():
    config = small_config()
    t, h, w = config.grid
    video = np.zeros((1, config.frames, config.height * 3, config.width * 3, 3), np.uint8)
    fine = position_reference.fixed_positions(
        dataclasses.replace(config, position_grid=config.grid), video, config.dim
    )
    coarse = position_reference.fixed_positions(config, video[:, :, ::3, ::3], config.dim)
    # The middle of three finer places coincides with the old place.
    middle = fine.reshape(t, h, 3, w, 3, -1)[:, :, 1, :, 1].reshape(coarse.shape)
    assert_close(middle, coarse, "float64")


@pytest.mark.clause("POS-5", "OPTION-1", "OPTION-2", "OPTION-3", "OPTION-4")
def test_derivatives_of_the_options():
    one = case(
        learned_positions=True,
        query_value_bias=False,
        encoder_norm=False,
        last_norm_epsilon=0.1,
        activation="mish",
    )
    _, gradients = pretraining_gradients(one.config, one.weights, one.batch)
    assert gradients.keys() == one.weights.keys()
    generator = np.random.default_rng(0)
    seen = one.batch["visible"][0, 0]
    entries = [("tubelet_embedding/positions", (seen, 3))] + [
        (name, tuple(generator.integers(0, size) for size in value.shape))
        for name, value in one.weights.items()
        if name.endswith(("kernel", "gamma"))
    ]
    slopes = training_reference.gradient(one.config, one.weights, one.batch, entries)
    analytic = np.array([gradients[name][index] for name, index in entries])
    assert abs(analytic[0]) > 1e-6
    assert_close(analytic, slopes, "difference_quotient")
