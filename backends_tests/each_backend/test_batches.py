"""Tests of the inputs that `fit`, `evaluate` and `predict` accept and refuse."""

import grain
import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.profiles import NIGHTLY
from backends_tests.support import (
    BACKEND,
    compile_and_build,
    numpy,
    random_batch,
    with_random_weights,
)
from spec import cost_reference, training_reference
from vmae_keras import VideoMAE, VideoMAEConfig
from vmae_keras.training.optimizer import AdamW, WarmupCosine

CONFIG = VideoMAEConfig.variant("tiny")


def sources(batches):
    return {
        "grain map": grain.MapDataset.source(batches),
        "grain iter": grain.MapDataset.source(batches).to_iter_dataset(),
        "generator": ((batch,) for batch in batches),
    }


OPTIONS = {
    "grain map": {},
    "grain iter": {"steps_per_execution": 1 if BACKEND == "torch" else 2},  # Keras allows no more
    # in this mode JAX compiles each operation
    "generator": {"run_eagerly": BACKEND != "jax" or NIGHTLY},
}


@pytest.mark.clause("FIT-1")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras does not know their length
@pytest.mark.parametrize("kind", OPTIONS)
def test_fit_takes_data_sets_of_batches_however_steps_are_executed(kind):
    batches = [random_batch(CONFIG, seed=seed, decoder_ratio=0.5) for seed in range(3)]
    expected, _ = with_random_weights(CONFIG)
    compile_and_build(expected, keras.optimizers.SGD(1e-3))
    for batch in batches:
        expected.train_on_batch(batch)
    model, _ = with_random_weights(CONFIG)
    compile_and_build(model, keras.optimizers.SGD(1e-3), **OPTIONS[kind])
    model.fit(sources(batches)[kind], epochs=1, shuffle=False, verbose=0)
    for mine, theirs in zip(model.variables, expected.variables, strict=True):
        assert_close(numpy(mine.value), numpy(theirs.value), "same_model", what=mine.path)


def test_plain_compile_and_fit_lower_the_loss():
    keras.utils.set_random_seed(0)
    model = VideoMAE(CONFIG.replace(depth=1))
    model.compile(keras.optimizers.AdamW(3e-3))
    losses = model.fit(random_batch(CONFIG, clips=4), epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


def test_evaluate_gives_the_same_loss_each_time():
    model, _ = with_random_weights(CONFIG.replace(drop_path=0.5))
    model.compile("sgd")
    batch = random_batch(CONFIG, clips=3)
    first, second = (model.evaluate(batch, verbose=0) for _ in range(2))
    assert first == second > 0


def test_predict_returns_the_decoded_tokens():
    model, _ = with_random_weights(CONFIG)
    batch = random_batch(CONFIG, clips=5)
    got = model.predict(batch, batch_size=2, verbose=0)
    assert got.shape == (5, batch["decoded"].shape[1], CONFIG.tubelet_size)
    assert_close(got, numpy(model(batch)), "same_model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": np.zeros((2, 4, 16, 16, 3), "uint8")}, r"Received: shape=\(2, 4, 16, 16, 3\)"),
        ({"visible": np.zeros((2, 5), "float32")}, "`visible` must be token ids"),
        ({"decoded": np.zeros((2, 5, 1), "int32")}, "`decoded` must be token ids"),
        ({"decoded": None}, r"Add \['decoded'\]"),
        ({"weight": np.ones(2, "float32")}, r"`weight` must .* Received: shape=\(2,\)"),
    ],
)
def test_wrong_batch_is_explained_and_costs_no_weights(change, message):
    """Check that the weights survive, as on JAX an error within `predict` would lose them."""
    model, _ = with_random_weights(CONFIG)
    good = random_batch(CONFIG)
    expected = numpy(model(good))
    bad = {name: value for name, value in {**good, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        model.predict(bad, verbose=0)
    with pytest.raises(ValueError, match=message):
        model(bad)
    np.testing.assert_array_equal(numpy(model(good)), expected)


@pytest.mark.clause("COUNT-1", "WEIGHT-1")
@pytest.mark.parametrize("name", ["tiny", "demo", "v1-s"])
def test_weights_are_those_of_the_table(name):
    config = VideoMAEConfig.variant(name)
    model = VideoMAE(config)
    got = {v.path.removeprefix(f"{model.name}/"): tuple(v.shape) for v in model.trainable_variables}
    assert got == training_reference.weight_shapes(config)
    assert model.count_params() == cost_reference.count_parameters(config)


@pytest.mark.clause("INIT-1", "INIT-2", "INIT-3", "INIT-4")
def test_initial_weights_follow_the_rules():
    keras.utils.set_random_seed(0)
    config = VideoMAEConfig.variant("demo", layer_scale=0.1, cosine_attention=True)
    model = VideoMAE(config)
    rules = training_reference.initialisation(config)
    for variable in model.trainable_variables:
        name = variable.path.removeprefix(f"{model.name}/")
        values, (rule, number) = numpy(variable.value), rules[name]
        if rule == "constant":
            assert (values == np.float32(number)).all(), name
            continue
        assert np.abs(values).max() <= np.float32(number), name
        # Share of draws beyond half the bound: 1/2 for a uniform distribution, .439 for the truncated
        # normal.
        share = {"uniform": 0.5, "truncated_normal": 0.4391}[rule]
        spread = 5 * np.sqrt(0.25 / values.size)
        assert (np.abs(values) > number / 2).mean() == pytest.approx(share, abs=spread), name


@pytest.mark.clause("OPT-2")
def test_weight_decay_touches_kernels_alone():
    config = CONFIG.replace(layer_scale=0.1, cosine_attention=True)
    model, weights = with_random_weights(config)
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.build(model.trainable_variables)
    zeros = [keras.ops.zeros_like(v.value) for v in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    for variable in model.trainable_variables:
        name = variable.path.removeprefix(f"{model.name}/")
        factor = 0.95 if training_reference.decayed(name, tuple(variable.shape)) else 1.0
        assert_close(numpy(variable.value), factor * weights[name], "float32", what=name)


@pytest.mark.clause("OPT-4")
@pytest.mark.parametrize(("warmup", "total"), [(0, 5), (1, 7), (4, 20), (40, 100)])
def test_learning_rate_equals_the_oracle(warmup, total):
    schedule = WarmupCosine(1e-3, 1e-5, warmup, total)
    got = [float(schedule(step)) for step in range(total)]
    expected = [
        training_reference.learning_rate(
            step,
            base=1e-3,
            minimum=1e-5,
            videos_per_step=256,
            warmup_steps=warmup,
            total_steps=total,
        )
        for step in range(total)
    ]
    assert_close(got, expected, "schedule")


@pytest.mark.clause("OPT-4")
def test_accumulating_optimizer_uses_the_rate_of_the_update():
    """Check the rate of accumulated updates.

    Keras queries the schedule per batch, and several make one update.
    """
    schedule = WarmupCosine(1e-1, 1e-3, 2, 6, accumulate=3)
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=3)
    weight = keras.Variable(np.zeros(1, "float32"))
    optimizer.build([weight])
    seen = [0.0]
    for _ in range(18):
        optimizer.apply([keras.ops.ones(1)], [weight])
        seen.append(float(numpy(weight.value)[0]))
    expected = [
        training_reference.learning_rate(
            update, base=1e-1, minimum=1e-3, videos_per_step=256, warmup_steps=2, total_steps=6
        )
        for update in range(6)
    ]
    assert_close(-np.diff(seen[::3]), expected, "schedule")


def test_a_weight_that_no_rule_covers_is_refused():
    with pytest.raises(ValueError, match="No rule says whether to decay"):
        AdamW().build([keras.Variable(np.zeros(3), name="novelty")])
