"""Small models that the oracle's tests share, with their weights and batches."""

from __future__ import annotations

import numpy as np

from spec import reference
from spec import training_reference as training
from spec.config import Config


def small_config(**changes) -> Config:
    """Return a model whose sizes all differ, so that a swapped axis cannot go unnoticed."""
    sizes = dict(
        frames=4,
        height=8,
        width=12,
        channels=3,
        tubelet=(2, 4, 4),
        dim=8,
        depth=2,
        heads=2,
        mlp_dim=20,
        decoder_dim=12,
        decoder_depth=1,
        decoder_heads=3,
        decoder_mlp_dim=28,
    )
    return Config(**(sizes | changes))


CONFIGS = {
    "plain": small_config(),
    "layer scale": small_config(layer_scale=0.1),
    "cosine attention": small_config(cosine_attention=True),
    "epsilon": small_config(layer_norm_epsilon=1e-3),
}


def small_batch(seed=0, clips=2):
    """Return a uint8 video and ids of 12 tokens: 4 visible and 6 decoded, with some overlap."""
    generator = np.random.default_rng(seed)
    ids = {
        name: np.stack([np.sort(generator.permutation(12)[:count]) for _ in range(clips)])
        for name, count in (("visible", 4), ("decoded", 6))
    }
    video = generator.integers(0, 256, (clips, 4, 8, 12, 3), dtype=np.uint8)
    return {"video": video, **ids, "weight": reference.decoded_weight(**ids)}


def weights_of(config, seed=1, shapes=None):
    """Return weights of sigma .5, with log_scales on both sides of the clamp (4.6052)."""
    shapes = training.weight_shapes(config) if shapes is None else shapes
    weights = training.random_weights_of(shapes, np.random.default_rng(seed))
    for name in weights:
        if name.endswith("log_scale"):
            weights[name].flat[:2] = 6.0, 1.5
    return weights
