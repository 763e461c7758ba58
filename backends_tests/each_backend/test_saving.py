"""Tests of saving and reloading: every layer, the model, the optimizer, the drop-path draws."""

import keras
import numpy as np
import pytest

from backends_tests.support import compile_and_build, numpy, random_batch, with_random_weights
from vmae_keras import VideoMAE, VideoMAEConfig, load
from vmae_keras.config import Stack
from vmae_keras.layers import MLP, Attention, Block, Transformer
from vmae_keras.runs import checkpoint_files
from vmae_keras.training import checkpoint
from vmae_keras.training.optimizer import AdamW, WarmupCosine

SIZES = {"dim": 16, "depth": 2, "heads": 2, "mlp_dim": 24}
LAYERS = {
    "attention": lambda: Attention(Stack(**SIZES, cosine_attention=True)),
    "mlp": lambda: MLP(Stack(**SIZES)),
    "block": lambda: Block(Stack(**SIZES, layer_scale=0.1, epsilon=1e-5)),
    "transformer": lambda: Transformer(Stack(**SIZES, drop_path=0.1), remat=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_reloads_from_its_config_and_weights(name, tmp_path):
    layer = LAYERS[name]()
    x = np.random.default_rng(0).normal(size=(2, 5, 16)).astype("float32")
    inputs = keras.Input((5, 16))
    model = keras.Model(inputs, layer(inputs))
    for variable in model.trainable_variables:  # zeros and ones would hide a swap
        variable.assign(np.random.default_rng(1).normal(0, 0.5, variable.shape))
    model.save(tmp_path / "layer.keras")
    again = keras.models.load_model(tmp_path / "layer.keras")
    assert again.layers[-1].get_config() == layer.get_config()
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("fresh_predict_first", [True, False])
def test_model_reloads_with_equal_outputs(tmp_path, fresh_predict_first):
    """Compare outputs. On JAX, a subclassed model with integer inputs once reloaded without its weights."""
    config = VideoMAEConfig.variant("tiny", drop_path=0.1)
    model, _ = with_random_weights(config)
    batch = random_batch(config)
    expected = model.predict(batch, verbose=0) if fresh_predict_first else numpy(model(batch))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.config == config
    run = again.predict if fresh_predict_first else lambda batch, verbose: numpy(again(batch))
    np.testing.assert_array_equal(run(batch, verbose=0), expected)


def test_weights_file_reloads(tmp_path):
    config = VideoMAEConfig.variant("tiny")
    model, _ = with_random_weights(config)
    other, _ = with_random_weights(config, seed=1)
    batch = random_batch(config)
    model.save_weights(tmp_path / "model.weights.h5")
    assert np.abs(numpy(other(batch)) - numpy(model(batch))).max() > 1e-2
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(numpy(other(batch)), numpy(model(batch)))


def test_config_round_trips():
    config = VideoMAEConfig.variant("v2-g", drop_path=0.1, mean=(0.5, 0.4, 0.3))
    assert VideoMAEConfig(**config.to_dict()) == config
    model = VideoMAE(VideoMAEConfig.variant("tiny", layer_scale=0.1), remat=True)
    again = VideoMAE.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert [v.path for v in again.variables] == [v.path for v in model.variables]


def trained(config, batch, epochs=2):
    keras.utils.set_random_seed(0)
    model = VideoMAE(config)
    compile_and_build(model, AdamW(WarmupCosine(1e-2, 1e-4, 2, 20), weight_decay=0.5))
    model.fit(batch, epochs=epochs, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a batch, the file of a model after two steps, and the model after two more."""
    config = VideoMAEConfig.variant("tiny")
    batch, path = random_batch(config), tmp_path_factory.mktemp("saved") / "model.keras"
    model = trained(config, batch)
    model.save(path)
    model.fit(batch, epochs=2, shuffle=False, verbose=0)
    return batch, path, model


@pytest.mark.parametrize("read", [keras.models.load_model, load], ids=["Keras", "ours"])
def test_reloaded_model_goes_on_training_as_it_would_have(read, saved):
    """Check that optimizer state, schedule and weight-decay rule are all restored."""
    batch, path, model = saved
    again = read(path)
    again.fit(batch, epochs=2, shuffle=False, verbose=0)
    assert int(numpy(again.optimizer.iterations.value)) == 4
    for mine, theirs in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(numpy(mine.value), numpy(theirs.value))


@pytest.mark.clause("FIT-2")
def test_callbacks_of_keras_save_and_restore_the_best_epoch(tmp_path):
    """Check with a falling loss and mode "max", so that the best epoch is the first."""
    config = VideoMAEConfig.variant("tiny")
    model, _ = with_random_weights(config)
    compile_and_build(model, keras.optimizers.SGD(1e-3))
    best = {"monitor": "loss", "mode": "max"}
    model.fit(
        random_batch(config, decoder_ratio=0.5),
        epochs=5,
        shuffle=False,
        verbose=0,
        callbacks=[
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            keras.callbacks.ModelCheckpoint(
                tmp_path / "best.weights.h5", save_best_only=True, save_weights_only=True, **best
            ),
            keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True, **best),
        ],
    )
    first, second, other = load(tmp_path / "1.keras"), load(tmp_path / "2.keras"), VideoMAE(config)
    other.load_weights(tmp_path / "best.weights.h5")
    assert int(first.optimizer.iterations + 0) == 1 and not (tmp_path / "3.keras").exists()
    for mine in (model, other):
        for each, its, later in zip(mine.variables, first.variables, second.variables, strict=True):
            np.testing.assert_array_equal(numpy(each.value), numpy(its.value), err_msg=each.path)
            assert (numpy(each.value) != numpy(later.value)).any(), each.path


def test_checkpoint_continues_with_the_same_drop_path_draws(tmp_path):
    """Check the seed states, which `.weights.h5` omits and a checkpoint restores."""
    config = VideoMAEConfig.variant("tiny", drop_path=0.5)
    batch = random_batch(config)
    model = trained(config, batch)
    path = checkpoint.save(tmp_path, 2, model)
    unbroken = model.fit(batch, epochs=3, shuffle=False, verbose=0).history["loss"]
    keras.utils.set_random_seed(99)
    other = VideoMAE(config)
    compile_and_build(other, AdamW(WarmupCosine(1e-2, 1e-4, 2, 20), weight_decay=0.5))
    assert checkpoint.restore(path, other) == 2
    assert other.fit(batch, epochs=3, shuffle=False, verbose=0).history["loss"] == unbroken


def test_checkpoint_that_does_not_fit_is_refused_whole(tmp_path):
    config = VideoMAEConfig.variant("tiny")
    path = checkpoint.save(tmp_path, 1, VideoMAE(config))
    other = VideoMAE(config.replace(depth=1, layer_scale=0.1, decoder_mlp_dim=8))
    before = [numpy(v.value) for v in other.variables]
    with pytest.raises(checkpoint.CheckpointError) as error:
        checkpoint.restore(path, other)
    text = str(error.value)
    assert "missing: video_mae/encoder/block_0/scale1" in text
    assert "left over: video_mae/encoder/block_1/norm1/gamma" in text
    assert "shape (16, 64), wanted (16, 8): video_mae/decoder/block_0/mlp/hidden/kernel" in text
    for variable, value in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable.value), value)


def test_checkpoint_keeps_the_newest_and_ignores_a_half_written_one(tmp_path):
    model = VideoMAE(VideoMAEConfig.variant("tiny"))
    assert checkpoint_files.latest(tmp_path) is None
    for step in (5, 20, 100):
        path = checkpoint.save(tmp_path, step, model)
        assert checkpoint_files.latest(tmp_path) == path
    (tmp_path / "step-00000200.partial").write_bytes(b"half")
    assert checkpoint_files.latest(tmp_path).name == "step-00000100.safetensors"
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
