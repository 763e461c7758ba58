"""Tests of AdamW's arithmetic and rules with given gradients: against the oracle, with Keras's options."""

import contextlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.support import BACKEND, compile_and_build, numpy
from spec import training_reference
from vmae_keras import VideoClassifier, VideoMAEConfig
from vmae_keras.training.optimizer import AdamW, WarmupCosine, layer_scales

# One weight of each kind that the rules distinguish. Small, as JAX compiles each shape.
SHAPES = {
    "tubelet_embedding/kernel": (6, 4),
    "encoder/block_0/mlp/hidden/kernel": (6, 4),
    "encoder/block_0/attention/q_bias": (4,),
    "encoder/block_1/attention/log_scale": (4,),
    "encoder/block_1/norm1/gamma": (4,),
    "mask_token": (6, 4),
    "decoder/block_0/mlp/hidden/kernel": (6, 4),
    "head/kernel": (6, 4),
}
RATES = [1e-2, 5e-3, 2e-3]


def random_arrays(seed, sizes):
    """Draw one array per weight; some gradients are near Adam's epsilon, where its place matters."""
    generator = np.random.default_rng(seed)
    return {
        name: (generator.normal(size=shape) * 10.0 ** generator.choice(sizes, shape)).astype(
            "float32"
        )
        for name, shape in SHAPES.items()
    }


WEIGHTS = random_arrays(0, [-2])
GRADIENTS = [random_arrays(seed, [-9, -8, -7, -3, 0]) for seed in (1, 2, 3)]


def variables():
    """Return Keras variables of these paths, with these values."""
    made = []
    for path, value in WEIGHTS.items():
        *scopes, name = path.split("/")
        with contextlib.ExitStack() as stack:
            for scope in ("video_mae", *scopes):
                stack.enter_context(keras.name_scope(scope))
            made.append(keras.Variable(value, name=name))
    assert [v.path for v in made] == [f"video_mae/{path}" for path in WEIGHTS]
    return made


def oracle(monkeypatch, gradients, rates=RATES, **settings):
    """Run the oracle's `adamw_steps` on the given gradients; return float64 weights by name."""
    monkeypatch.setattr(
        training_reference, "pretraining_gradients", lambda config, weights, batch: (0.0, batch)
    )
    return training_reference.adamw_steps(
        SimpleNamespace(depth=2), WEIGHTS, gradients, rates, **settings
    )


def steps(optimizer, batches, rates=RATES):
    """Return the weights after one step for each batch of gradients."""
    weights = variables()
    optimizer.build(weights)
    for gradients, rate in zip(batches, rates, strict=True):
        optimizer.learning_rate = rate
        tensors = [keras.ops.convert_to_tensor(gradients[name]) for name in SHAPES]
        optimizer.apply(tensors, weights)
    return dict(zip(SHAPES, map(numpy, weights), strict=True))


def assert_equal_steps(got, expected, rates=RATES):
    """Compare weights relative to the sum of the rates, the largest possible movement."""
    for name in SHAPES:
        assert_close(got[name], expected[name], "adamw_step", sum(rates), name)


@pytest.mark.clause("OPT-2", "OPT-5", "FT-6", "FT-7")
@pytest.mark.parametrize("layer_decay", [None, 0.7])
@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.9, 0.95), (0.9, 0.999), (0.0, 0.5)])
def test_three_steps_equal_the_oracle(monkeypatch, beta_1, beta_2, layer_decay):
    settings = {"weight_decay": 0.5, "beta_1": beta_1, "beta_2": beta_2, "layer_decay": layer_decay}
    got = steps(AdamW(1.0, **settings), GRADIENTS)
    expected = oracle(monkeypatch, GRADIENTS, **settings)
    assert_equal_steps(got, expected)


@pytest.mark.clause("OPT-1")
def test_the_defaults_are_the_papers(monkeypatch):
    got = steps(AdamW(1.0), GRADIENTS)
    expected = oracle(
        monkeypatch, GRADIENTS, weight_decay=0.05, beta_1=0.9, beta_2=0.95, epsilon=1e-8
    )
    assert_equal_steps(got, expected)


@pytest.mark.clause("OPT-5")
def test_an_accumulated_update_is_that_of_the_mean_gradient(monkeypatch):
    """Check that bias corrections count updates, not batches."""
    got = steps(
        AdamW(1.0, weight_decay=0.5, gradient_accumulation_steps=2),
        [gradients for gradients in GRADIENTS for _ in range(2)],
        [rate for rate in RATES for _ in range(2)],
    )
    expected = oracle(monkeypatch, GRADIENTS, weight_decay=0.5)
    assert_equal_steps(got, expected)


@pytest.mark.clause("OPT-5")
def test_gradients_are_clipped_before_the_update(monkeypatch):
    got = steps(AdamW(1.0, global_clipnorm=0.1), GRADIENTS)
    norms = [np.sqrt(sum((g**2).sum() for g in gradients.values())) for gradients in GRADIENTS]
    assert min(norms) > 1
    clipped = [
        {name: 0.1 / norm * g.astype("float64") for name, g in gradients.items()}
        for norm, gradients in zip(norms, GRADIENTS, strict=True)
    ]
    assert_equal_steps(got, oracle(monkeypatch, clipped))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a strategy of TensorFlow's")
@pytest.mark.clause("OPT-5", "FT-7")
def test_mirrored_variables_are_found_by_their_parts(monkeypatch):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        optimizer, weights = AdamW(RATES[0], layer_decay=0.7), variables()
        optimizer.build(weights)
    assert type(weights[0].value).__name__ == "MirroredVariable"
    gradients = [tf.constant(gradient) for gradient in GRADIENTS[0].values()]
    strategy.run(tf.function(lambda: optimizer.apply(gradients, weights)))
    expected = oracle(monkeypatch, GRADIENTS[:1], RATES[:1], layer_decay=0.7)
    got = dict(zip(SHAPES, map(numpy, weights), strict=True))
    assert_equal_steps(got, expected, RATES[:1])


@pytest.mark.clause("FT-6")
@pytest.mark.parametrize("depth", [1, 12])
def test_layer_scales_equal_the_oracle(depth):
    config = VideoMAEConfig.variant("tiny", depth=depth, layer_scale=0.1, cosine_attention=True)
    names = {
        *training_reference.weight_shapes(config),
        *training_reference.classifier_weight_shapes(config, 3, "mean"),
        *training_reference.classifier_weight_shapes(config, 3, "first"),
    }
    expected = [training_reference.layer_decay_scale(name, depth, 0.75) for name in names]
    assert min(expected) == 0.75 ** (depth + 1)
    np.testing.assert_allclose(layer_scales([f"model/{name}" for name in names], 0.75), expected)
    assert set(layer_scales(list(names), None)) == {1.0}


@pytest.mark.clause("FT-6")
def test_a_head_of_the_users_own_keeps_the_whole_rate():
    """Check the full rate of a custom head, and of a stack whose path only ends like the encoder's."""
    paths = ["my_model/video_classifier/encoder/block_1/norm1/beta", "my_model/dense/kernel"]
    assert layer_scales(paths, 0.5) == [0.5, 1.0]
    assert layer_scales(["my_encoder/block_0/norm1/beta", "encoder/norm/beta"], 0.5) == [1.0, 1.0]


@pytest.mark.clause("OPT-2")
def test_weights_that_a_user_excludes_do_not_decay_either():
    optimizer = AdamW(1e-2, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["^kernel$"])
    nothing = {name: np.zeros_like(value) for name, value in WEIGHTS.items()}
    for name, value in steps(optimizer, [nothing], [1e-2]).items():
        np.testing.assert_array_equal(value, WEIGHTS[name], err_msg=name)


def test_amsgrad_is_refused():
    with pytest.raises(ValueError, match="Received: amsgrad=True"):
        AdamW(amsgrad=True)


def test_it_comes_back_from_its_config():
    optimizer = AdamW(
        WarmupCosine(1e-3, 1e-5, 4, 20),
        weight_decay=0.1,
        beta_1=0.8,
        beta_2=0.9,
        epsilon=1e-6,
        layer_decay=0.65,
        global_clipnorm=0.02,
        gradient_accumulation_steps=2,
        use_ema=True,
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is AdamW and again.get_config() == optimizer.get_config()
    assert again.layer_decay == 0.65 and again.name == "adamw"


@pytest.mark.clause("FT-6")
def test_it_trains_a_classifier_with_all_options_at_once():
    """Check it wrapped in loss scaling, with accumulation, clipping and the moving average of Keras."""
    keras.utils.set_random_seed(0)
    config = VideoMAEConfig.variant("tiny", depth=1)
    model = VideoClassifier(config, 4, init_scale=1.0, dtype="mixed_float16")
    compile_and_build(
        model,
        AdamW(
            1e-2,
            layer_decay=0.75,
            gradient_accumulation_steps=2,
            global_clipnorm=1.0,
            use_ema=True,
            ema_momentum=0.5,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    video = np.random.default_rng(0).integers(0, 256, (4, 4, 16, 24, 3), dtype=np.uint8)
    history = model.fit(video, np.arange(4), epochs=16, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    assert int(numpy(model.optimizer.iterations)) == 8


@pytest.mark.clause("OPT-6")
def test_averages_begin_at_the_first_weights_and_follow_updates_alone():
    optimizer = AdamW(1.0, average_decay=0.6, gradient_accumulation_steps=2)
    weights = variables()
    optimizer.build(weights)
    seen = {name: [value] for name, value in WEIGHTS.items()}
    for batch in range(4):
        optimizer.learning_rate = RATES[batch // 2]
        tensors = [keras.ops.convert_to_tensor(g) for g in GRADIENTS[batch // 2].values()]
        optimizer.apply(tensors, weights)
        if batch % 2:
            for name, weight in zip(SHAPES, weights, strict=True):
                seen[name].append(numpy(weight))
    for name, average in zip(SHAPES, optimizer.averages, strict=True):
        expected = training_reference.moving_averages(seen[name], 0.6)
        assert_close(numpy(average), expected, "float32", what=name)
