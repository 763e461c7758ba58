"""Tests of the classifier: weights, initialisation, transfer.

`test_drawn_models.py` compares the logits.
"""

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.support import (
    SEED_SHIFT,
    assign,
    by_path,
    compile_and_build,
    numpy,
    with_random_weights,
)
from spec import reference, training_reference
from vmae_keras import VideoClassifier, VideoMAEConfig
from vmae_keras.config import Stack
from vmae_keras.layers import Transformer
from vmae_keras.training.optimizer import AdamW

CONFIG = VideoMAEConfig.variant("tiny", depth=1)
CLASSES = 5


def random_video(config, clips=2, seed=0):
    shape = (clips, config.frames, config.height, config.width, config.channels)
    return np.random.default_rng(seed + SEED_SHIFT).integers(0, 256, shape, dtype=np.uint8)


def random_classifier(config, pooling="mean", seed=0, classes=CLASSES, **kwargs):
    """Return a classifier and its weights of sigma .5, which are large enough to expose a wrong detail."""
    model = VideoClassifier(config, classes, pooling=pooling, **kwargs)
    shapes = training_reference.classifier_weight_shapes(config, classes, pooling)
    weights = training_reference.random_weights_of(shapes, np.random.default_rng(seed + SEED_SHIFT))
    weights = {name: value.astype("float32") for name, value in weights.items()}
    assign(model, weights)
    return model, weights


@pytest.mark.clause("FT-4")
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_weights_are_those_of_the_table(pooling):
    config = CONFIG.replace(layer_scale=0.1, cosine_attention=True)
    model = VideoClassifier(config, CLASSES, pooling=pooling, head_dropout=0.5)
    got = {name: tuple(variable.shape) for name, variable in by_path(model).items()}
    assert got == training_reference.classifier_weight_shapes(config, CLASSES, pooling)


@pytest.mark.clause("FT-5")
def test_initial_weights_follow_the_rules():
    keras.utils.set_random_seed(0)
    config = CONFIG.replace(depth=2, layer_scale=0.1)
    model = VideoClassifier(config, CLASSES, init_scale=0.1)
    rules = training_reference.classifier_initialisation(config, CLASSES, init_scale=0.1)
    weights = {name: numpy(variable.value) for name, variable in by_path(model).items()}
    for name, values in weights.items():
        rule, number = rules[name]
        if rule == "constant":
            assert (values == np.float32(number)).all(), name
            continue
        spread = 5 / np.sqrt(values.size)  # five standard deviations of the measured spread
        if rule == "uniform":
            assert np.abs(values).max() <= np.float32(number), name
            assert (np.abs(values) > number / 2).mean() == pytest.approx(0.5, abs=spread / 2), name
        else:
            assert values.std() == pytest.approx(number, rel=spread / np.sqrt(2)), name
            share = (np.abs(values) > 2 * number).mean()
            # Not truncated at two deviations: 4.55 % of a normal distribution lie beyond.
            assert share == pytest.approx(0.0455, abs=spread * np.sqrt(0.0455)), name
    # An initializer shared by two layers would give them equal weights.
    first, second = (weights[f"encoder/block_{i}/mlp/hidden/kernel"] for i in range(2))
    assert np.abs(first - second).max() > 0.02


@pytest.mark.clause("FT-3")
def test_dropout_takes_the_heads_input_in_training_alone():
    """Check the dropout by a head that adds 1 to its input, which shows the dropped places."""
    model, weights = random_classifier(CONFIG, classes=CONFIG.dim, head_dropout=0.25)
    assign(model, {**weights, "head/kernel": np.eye(CONFIG.dim), "head/bias": np.ones(CONFIG.dim)})
    video = random_video(CONFIG)
    kept = numpy(model(video))
    dropped = np.stack([numpy(model(video, training=True)) for _ in range(32)])
    plain, _ = random_classifier(CONFIG, classes=CONFIG.dim)
    assign(plain, {name: numpy(variable.value) for name, variable in by_path(model).items()})
    np.testing.assert_array_equal(kept, numpy(plain(video)))
    gone = dropped == 1
    # Five standard deviations of the share of the draws.
    assert gone.mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / gone.size))
    assert_close(dropped, np.where(gone, 1, (kept - 1) / 0.75 + 1), "same_model")


@pytest.mark.clause("FT-1", "FT-2")
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_pretrained_encoder_is_taken_over(pooling):
    pretrained, theirs = with_random_weights(CONFIG, seed=1)
    config = CONFIG.replace(frames=6, drop_path=0.1, decoder_dim=8)
    model, mine = random_classifier(config, pooling)
    left = model.load_encoder(pretrained)
    norm = "fc_norm" if pooling == "mean" else "encoder/norm"
    own = {f"{norm}/gamma", f"{norm}/beta", "head/kernel", "head/bias"}
    assert set(left) == (own if pooling == "mean" else {"head/kernel", "head/bias"})
    for name, variable in by_path(model).items():
        expected = mine[name] if name in left else theirs[name]
        np.testing.assert_array_equal(numpy(variable.value), expected, err_msg=name)
    other = VideoClassifier(config, 3, pooling=pooling)
    assert other.load_encoder(model) == left
    np.testing.assert_array_equal(
        numpy(other.tubelet_embedding.kernel), theirs["tubelet_embedding/kernel"]
    )


def test_what_was_taken_over_is_a_copy():
    """Check that the arrays are copies, as on JAX a training step donates the model's arrays."""
    pretrained, theirs = with_random_weights(CONFIG)
    model = VideoClassifier(CONFIG, CLASSES)
    model.load_encoder(pretrained)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(random_video(CONFIG), np.array([0, 1]))
    for name, variable in by_path(pretrained).items():
        np.testing.assert_array_equal(numpy(variable.value), theirs[name], err_msg=name)


@pytest.mark.parametrize(
    ("changes", "pooling", "message"),
    [
        ({"heads": 4}, "mean", r"Received: heads=2 \(the other's is 4\)"),
        (
            {"height": 32, "depth": 2},
            "mean",
            r"depth=1 \(the other's is 2\), .*grid=\(4, 6\) .* \(8, 6\)",
        ),
        ({}, "first", r"without \['encoder/norm/gamma', 'encoder/norm/beta'\]"),
    ],
)
def test_another_encoder_is_refused_whole(changes, pooling, message):
    model, weights = random_classifier(CONFIG, pooling)
    with pytest.raises(ValueError, match=message):
        model.load_encoder(VideoClassifier(CONFIG.replace(**changes), 2))
    for name, variable in by_path(model).items():
        np.testing.assert_array_equal(numpy(variable.value), weights[name], err_msg=name)


def test_wrong_video_is_explained_and_costs_no_weights():
    """Check that the weights survive, as on JAX an error within `predict` would lose them."""
    model, _ = random_classifier(CONFIG)
    good = random_video(CONFIG)
    expected = numpy(model(good))
    for bad, received in ((good[:, :2], r"\(2, 2, 16, 24, 3\)"), (good[0], r"\(4, 16, 24, 3\)")):
        for call in (model, lambda video: model.predict(video, verbose=0)):
            with pytest.raises(
                ValueError, match=rf"\(B, 4, 16, 24, 3\).*Received: shape={received}"
            ):
                call(bad)
    np.testing.assert_array_equal(numpy(model(good)), expected)


def test_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match=r"'mean' or 'first'\. Received: pooling='max'"):
        VideoClassifier(CONFIG, 3, pooling="max")


def test_reloaded_classifier_goes_on_training_as_it_would_have(tmp_path):
    """Check weights, optimizer state and layer decay, without dropout, whose draws `.keras` omits."""
    keras.utils.set_random_seed(0)
    model = VideoClassifier(CONFIG, CLASSES, pooling="first", init_scale=1.0)
    compile_and_build(
        model,
        AdamW(1e-2, layer_decay=0.75),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    video, labels = random_video(CONFIG, clips=4), np.arange(4)
    losses = model.fit(video, labels, epochs=6, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    model.save(tmp_path / "classifier.keras")
    again = keras.models.load_model(tmp_path / "classifier.keras")
    assert again.get_config() == model.get_config()
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for one in (model, again):
        one.fit(video, labels, epochs=2, shuffle=False, verbose=0)
    for mine, theirs in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(numpy(mine.value), numpy(theirs.value))


def test_its_encoder_reloads_from_its_config():
    stack = Stack(dim=32, depth=1, heads=2, mlp_dim=64, kernel_std=0.02, final_norm=False)
    encoder = Transformer(stack, name="encoder")
    again = Transformer.from_config(encoder.get_config())
    assert again.get_config() == encoder.get_config()
    for one in (encoder, again):
        one.build((None, None, 32))
    assert [v.path for v in again.variables] == [v.path for v in encoder.variables]
    assert not any(variable.path.startswith("encoder/norm") for variable in encoder.variables)


@pytest.mark.clause("INPUT-1")
def test_mixed_precision_normalises_before_it_rounds():
    """Check that rounding follows normalisation; half precision would lose detail around a bright mean."""
    config = CONFIG.replace(mean=(0.9,) * 3, std=(0.001,) * 3)
    video = random_video(config).astype("float32") / 255 * 0.002 + 0.9
    half, weights = random_classifier(config, dtype="mixed_bfloat16")
    logits = half(video)
    assert "bfloat16" in str(logits.dtype)
    expected = reference.classify(config, weights, video)
    # The difference would be .5 if the pixels were rounded.
    assert_close(numpy(keras.ops.cast(logits, "float32")), expected, "mixed_precision.output")
