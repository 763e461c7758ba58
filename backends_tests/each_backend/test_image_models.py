"""Tests of the start, training and presets of ViT and MAE. The conformance suite compares their outputs."""

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.support import by_path, numpy, random_batch, with_random_weights
from spec import reference
from vmae_keras import VideoClassifier, VideoEncoder, VideoMAEConfig
from vmae_keras.evaluation.frozen_encoder import FrozenEncoder
from vmae_keras.layers import TubeletEmbedding
from vmae_keras.training.optimizer import decayed, layer_scales

IMAGE = VideoMAEConfig.variant("tiny", frames=1, tubelet=(1, 4, 4), depth=1, class_token=True)
VIT = IMAGE.replace(learned_positions=True)
MAE = IMAGE.replace(planar_positions=True, bridge_bias=True, mae_target=True)
TOKEN = "tubelet_embedding/class_token"


@pytest.mark.clause("IMAGE-1", "OPT-2", "FT-6")
def test_a_class_token_starts_normal_and_does_not_decay():
    keras.utils.set_random_seed(0)
    layer = TubeletEmbedding(VIT.replace(dim=512), normal_positions=True)
    layer.build()
    values = numpy(layer.class_token.value)
    assert values.shape == (1, 1, 512)
    assert values.std() == pytest.approx(0.02, rel=0.15)  # 512 draws
    assert not np.allclose(values[0, 0], numpy(layer.positions.value)[0])
    assert decayed([TOKEN, "head/kernel"]) == [False, True]
    assert layer_scales([TOKEN, "encoder/block_0/norm1/beta", "head/kernel"], 0.5)[0] == 0.25


@pytest.mark.clause("IMAGE-1", "IMAGE-2", "IMAGE-6", "LOSS-3")
def test_in_mixed_precision_the_target_stays_float32():
    config = MAE.replace(learned_positions=True)
    model, weights = with_random_weights(config, dtype="mixed_bfloat16")
    batch = random_batch(config, kind="random")
    expected = reference.forward(config, weights, batch)
    got = model.predict(batch, verbose=0)
    assert_close(got, expected, "mixed_precision.output")
    assert np.abs(got - expected).max() > 1e-4 * np.abs(expected).max()
    found, wanted = model.target(batch), reference.target(config, batch["video"], batch["decoded"])
    assert_close(numpy(found), wanted, "target")


@pytest.mark.clause("IMAGE-1", "IMAGE-3", "IMAGE-4", "WEIGHT-1")
def test_an_encoder_of_a_pretrained_mae_keeps_its_class_token(tmp_path):
    model, weights = with_random_weights(MAE)
    model.save_to_preset(tmp_path)
    encoder = VideoEncoder.from_preset(tmp_path)
    video = random_batch(MAE)["video"]
    features = encoder.predict(video, verbose=0)
    assert features.shape == (2, 1 + MAE.num_tokens, MAE.dim)
    every = np.tile(np.arange(MAE.num_tokens), (2, 1))
    out = reference.forward(
        MAE, weights, {"video": video, "visible": every, "decoded": every[:, :1]}, named=True
    )
    assert_close(features, out["encoder/norm"], "features")
    frozen = FrozenEncoder.from_preset(tmp_path)
    assert frozen.pooling == "mean"  # tubelets only, without the class token
    assert_close(numpy(frozen(video)), out["encoder/norm"][:, 1:].mean(1), "features")
    classifier = VideoClassifier(MAE, 5)
    fresh = classifier.load_encoder(model)
    assert fresh == ["fc_norm/gamma", "fc_norm/beta", "head/kernel", "head/bias"]
    np.testing.assert_array_equal(numpy(by_path(classifier)[TOKEN].value), weights[TOKEN])
    with pytest.raises(ValueError, match="class_token=False"):
        VideoClassifier(MAE.replace(class_token=False), 5).load_encoder(model)


@pytest.mark.clause("IMAGE-1", "IMAGE-3")
def test_the_first_token_is_the_class_token():
    """Check that only the class token is pooled: permuting the other tokens does not change the output."""
    keras.utils.set_random_seed(0)
    encoder = VideoEncoder(IMAGE.replace(learned_positions=True), pooling="first")
    positions = by_path(encoder)["tubelet_embedding/positions"]
    rows = numpy(positions.value).copy()
    rows[1:] = rows[1]  # makes all places alike
    positions.assign(rows)
    video = random_batch(IMAGE)["video"]
    turned = np.roll(video, IMAGE.tubelet[1], axis=2)
    expected, got = (encoder.predict(v, verbose=0) for v in (video, turned))
    assert_close(got, expected, "same_model")
