"""Tests of gradients through every option that affects them. `test_conformance.py` checks their values."""

import keras
import numpy as np
import pytest

from backends_tests.adapters.keras_model import gradients
from backends_tests.compare import assert_close
from backends_tests.support import compile_and_build, numpy, random_batch, with_random_weights
from spec import training_reference
from vmae_keras import VideoMAE, VideoMAEConfig


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_every_weight_learns_and_rematerialisation_changes_no_gradient(drop_path):
    """Check that the recomputed pass drops the same branches as the first, with drop-path.

    On JAX, rematerialising a layer instead of its `call` silently freezes its weights.
    """
    config = VideoMAEConfig.variant("tiny", drop_path=drop_path)
    batch = random_batch(config, clips=8)
    found = []
    for remat in (False, True):
        keras.utils.set_random_seed(5)
        model, _ = with_random_weights(config, remat=remat)
        found.append(gradients(model, batch))
    plain, recomputed = found
    for name, slope in plain.items():
        assert np.abs(slope).max() > 0, name
        assert_close(recomputed[name], slope, "gradient", what=name)


def test_rematerialisation_takes_every_block(monkeypatch):
    """Check that rematerialisation is applied, so that other tests do not compare equal models."""
    taken = []
    monkeypatch.setattr(keras, "remat", lambda function: taken.append(function) or function)
    config = VideoMAEConfig.variant("tiny")
    for remat, count in ((False, 0), (True, config.depth + config.decoder_depth)):
        taken.clear()
        VideoMAE(config, remat=remat)(random_batch(config))
        assert len(taken) == count


@pytest.mark.clause("BLOCK-7")
def test_drop_path_keeps_or_scales_whole_branches():
    config = VideoMAEConfig.variant("tiny", drop_path=0.4, depth=3)
    stack = VideoMAE(config).encoder
    x = np.zeros((2000, 1, config.dim), "float32")
    keep, next_keep = (numpy(stack._keep(keras.ops.convert_to_tensor(x))) for _ in range(2))
    assert keep.shape == (3, 2, 2000)
    assert (next_keep != keep).any()
    for rate, factors in zip(training_reference.drop_path_rates(0.4, 3), keep, strict=True):
        alive = np.float32(1) / np.float32(1 - rate)
        assert set(np.unique(factors)) <= {np.float32(0), alive}
        # Five standard deviations of the share of 4000 draws.
        assert (factors == 0).mean() == pytest.approx(rate, abs=5 * np.sqrt(0.25 / 4000))
    # Each branch of each block has its own draw: five standard deviations around no correlation.
    between = np.corrcoef((keep[1:] == 0).reshape(4, 2000))
    assert np.abs(between - np.eye(4)).max() < 5 / np.sqrt(2000)


def test_accumulated_gradients_equal_those_of_the_large_batch():
    config = VideoMAEConfig.variant("tiny")
    batch = random_batch(config, clips=4)
    results = []
    for accumulate in (None, 2):
        model, _ = with_random_weights(config)
        # Adam would magnify rounding errors where a gradient vanishes.
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulate)
        compile_and_build(model, optimizer)
        size = 4 // (accumulate or 1)
        model.fit(batch, batch_size=size, epochs=1, shuffle=False, verbose=0)
        results.append([numpy(v.value) for v in model.trainable_variables])
    start, _ = with_random_weights(config)
    large, parts = results
    before = [numpy(v.value) for v in start.trainable_variables]
    moved = [np.abs(one - other).max() for one, other in zip(large, before, strict=True)]
    assert min(moved) > 0
    for one, other in zip(parts, large, strict=True):
        assert_close(one, other, "gradient", max(moved))


def test_global_norm_is_clipped():
    config = VideoMAEConfig.variant("tiny")
    model, _ = with_random_weights(config)
    before = [numpy(v.value) for v in model.trainable_variables]
    compile_and_build(model, keras.optimizers.SGD(1.0, global_clipnorm=0.5))
    model.train_on_batch(random_batch(config))
    after = [numpy(v.value) for v in model.trainable_variables]
    norm = np.sqrt(
        sum(((b - a).astype("float64") ** 2).sum() for a, b in zip(before, after, strict=True))
    )
    assert_close(norm, 0.5, "gradient")


def test_ema_of_the_weights_is_what_fit_leaves():
    """Check the average that `fit` leaves. Keras initialises it with the weights after the first step."""
    config = VideoMAEConfig.variant("tiny")
    batch = random_batch(config)
    plain, _ = with_random_weights(config)
    compile_and_build(plain, keras.optimizers.SGD(0.01))
    steps = []
    for _ in range(2):
        plain.fit(batch, epochs=1, verbose=0)
        steps.append(numpy(plain.mask_token.value))
    averaged, _ = with_random_weights(config)
    compile_and_build(averaged, keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.75))
    averaged.fit(batch, epochs=2, verbose=0)
    assert np.abs(steps[1] - steps[0]).max() > 1e-3
    expected = 0.75 * steps[0] + 0.25 * steps[1]
    assert_close(numpy(averaged.mask_token.value), expected, "float32")


def trained(dtype):
    """Return a model after eight steps, its batch and its losses."""
    config = VideoMAEConfig.variant("tiny")
    batch = random_batch(config, clips=4)
    keras.utils.set_random_seed(0)
    model = VideoMAE(config, dtype=dtype)
    compile_and_build(model, keras.optimizers.AdamW(1e-3))
    losses = model.fit(batch, epochs=8, verbose=0).history["loss"]
    assert all(str(v.dtype) == "float32" for v in model.trainable_variables)
    return model, batch, losses


@pytest.fixture(scope="module")
def full():
    return trained("float32")[2]


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains(precision, full):
    """Check mixed precision on CPUs too, where `jax.nn.dot_product_attention` refuses float16."""
    model, batch, half = trained(precision)
    assert precision.removeprefix("mixed_") in str(model(batch).dtype)
    is_scaled = type(model.optimizer).__name__ == "LossScaleOptimizer"
    assert is_scaled == (precision == "mixed_float16")
    assert half[-1] < half[0]
    assert_close(half[-1], full[-1], "mixed_precision.loss")
