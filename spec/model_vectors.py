"""Golden vectors of models: forward passes, losses, gradients and updates."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from spec import masks_reference as masks
from spec import reference
from spec import training_reference as training
from spec.config import Config
from spec.gradient_reference import pretraining_gradients
from spec.vector_draws import Draws
from spec.vector_files import Contents, Tensors, prefixed

SMALL = Config(
    frames=4,
    height=8,
    width=12,
    tubelet=(2, 4, 3),
    dim=16,
    depth=2,
    heads=2,
    mlp_dim=28,
    decoder_dim=12,
    decoder_depth=1,
    decoder_heads=3,
    decoder_mlp_dim=20,
)
# The epsilon is near the gradients' size. With 1e-8, an epsilon in the wrong place (OPT-5) would not
# show, and the rounding noise of a vanishing gradient would become a whole step.
ADAMW = {
    "rates": [0.004, 0.01, 0.002],
    "weight_decay": 0.05,
    "beta_1": 0.9,
    "beta_2": 0.95,
    "epsilon": 0.01,
}


def v1() -> Contents:
    config = dataclasses.replace(SMALL, depth=1, decoder_depth=2)
    return pretraining(config, seed=10, ratio=0.75, adamw=ADAMW)


def v2() -> Contents:
    adamw = {**ADAMW, "layer_decay": 0.7}
    config = dataclasses.replace(SMALL, frames=8)
    return pretraining(config, seed=3, ratio=0.75, decoder_ratio=0.5, adamw=adamw)


def odd_grid() -> Contents:
    config = dataclasses.replace(SMALL, frames=6, height=12, width=15, depth=1)
    return pretraining(
        config, seed=4, kind="random", ratio=0.8, decoder_ratio=0.25, low_contrast=True
    )


def options() -> Contents:
    config = dataclasses.replace(
        SMALL,
        depth=1,
        channels=1,
        norm_pix=False,
        layer_scale=0.1,
        cosine_attention=True,
        mean=(0.45,),
        std=(0.3,),
        layer_norm_epsilon=0.01,
    )
    return pretraining(config, seed=24, kind="agnostic", ratio=0.6)


def pretraining(
    config: Config,
    *,
    seed: int,
    kind: str = "tube",
    ratio: float,
    decoder_ratio: float | None = None,
    low_contrast: bool = False,
    adamw: dict[str, Any] | None = None,
) -> Contents:
    """Compute weights, inputs, every intermediate, target, loss and gradients for two clips."""
    draws = Draws(seed)
    weights = drawn_weights(training.weight_shapes(config), draws)
    shape = (2, config.frames, config.height, config.width, config.channels)
    # Raw-pixel targets get a float video, so that both kinds of video are covered.
    video = draws.pixels(*shape) if config.norm_pix else (draws.dyadic(*shape) + 1) / 2
    if low_contrast:  # ten grey levels in one clip, so that the epsilon of TARGET-2 shows
        video[1] = 100 + video[1] // 26
    clips = [
        masks.pretraining(config.grid, draws, kind=kind, ratio=ratio, decoder_ratio=decoder_ratio)
        for _ in range(2)
    ]
    batch = {
        "video": video,
        **{name: np.stack([clip[name] for clip in clips]) for name in clips[0]},
    }
    loss, gradients = pretraining_gradients(config, weights, batch)
    tensors = {
        **batch,
        **prefixed("weights", weights),
        **prefixed("forward", reference.forward(config, weights, batch, named=True)),
        "target": reference.target(config, video, batch["decoded"]),
        "loss": np.asarray(loss),
        **prefixed("gradients", gradients),
    }
    about = {"config": dataclasses.asdict(config), "seed": seed}
    if adamw:
        about["adamw"] = adamw
        batches = [batch] * len(adamw["rates"])
        tensors |= prefixed("updated", training.adamw_steps(config, weights, batches, **adamw))
    return about, tensors


def classifier() -> Contents:
    """Compute the logits of both poolings from one set of weights; each uses its own norm."""
    seed, classes = 0, 5
    draws, shapes = Draws(seed), {}
    for pooling in ("mean", "first"):
        shapes |= training.classifier_weight_shapes(SMALL, classes, pooling)
    weights = drawn_weights(shapes, draws)
    video = draws.pixels(2, SMALL.frames, SMALL.height, SMALL.width, SMALL.channels)
    tensors = {"video": video, **prefixed("weights", weights)}
    for pooling in ("mean", "first"):
        named = reference.classify(SMALL, weights, video, pooling=pooling, named=True)
        tensors |= prefixed(pooling, named)
    return {"config": dataclasses.asdict(SMALL), "classes": classes, "seed": seed}, tensors


def drawn_weights(shapes: dict[str, tuple[int, ...]], draws: Draws) -> Tensors:
    """Draw large weights, so that small errors show: gammas 1 +- .5, log_scales 3 +- 3, others +- 1."""
    weights = {name: draws.dyadic(*shape) for name, shape in shapes.items()}
    for name, values in weights.items():
        if name.endswith("gamma"):
            weights[name] = 1 + values / 2
        if name.endswith("log_scale"):
            weights[name] = 3 + 3 * values
    return weights
