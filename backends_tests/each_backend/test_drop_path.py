"""Tests of drop-path inside the model: the drawn factors against the oracle, per branch and clip."""

import keras
import numpy as np
import pytest

from backends_tests.compare import assert_close
from backends_tests.support import numpy, random_batch, with_random_weights
from spec import reference, training_reference
from vmae_keras import VideoMAEConfig
from vmae_keras.layers import Transformer


@pytest.mark.clause("BLOCK-7")
def test_each_branch_of_each_clip_has_its_own_factor(monkeypatch):
    config = VideoMAEConfig.variant("tiny", drop_path=0.5, depth=3, decoder_depth=2)
    model, weights = with_random_weights(config)
    batch, generator = random_batch(config, clips=4), np.random.default_rng(0)
    keep = {}
    for part, depth in (("encoder", config.depth), ("decoder", config.decoder_depth)):
        rates = training_reference.drop_path_rates(config.drop_path, depth)[:, None, None]
        alive = generator.random((depth, 2, 4)) < 0.5  # drops more branches than the rates would
        keep[part] = (alive / (1 - rates)).astype("float32")
    monkeypatch.setattr(
        Transformer, "_keep", lambda self, x: keras.ops.convert_to_tensor(keep[self.name])
    )
    expected = reference.forward(
        config, weights, batch, encoder_keep=keep["encoder"], decoder_keep=keep["decoder"]
    )
    assert_close(numpy(model(batch, training=True)), expected, "prediction")
