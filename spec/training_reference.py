"""The oracle's weights, schedule and gradient: SPEC.md's WEIGHT, COUNT, INIT and OPT clauses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from spec.reference import Batch, Weights, pretraining_loss


def weight_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Every trainable weight and its shape, in the forward's order. WEIGHT-1."""
    values = math.prod(config.tubelet) * config.channels
    encoder = (config.dim, config.depth, config.heads, config.mlp_dim)
    decoder = (
        config.decoder_dim,
        config.decoder_depth,
        config.decoder_heads,
        config.decoder_mlp_dim,
    )
    shapes: dict[str, tuple[int, ...]] = {
        "tubelet_embedding/kernel": (values, config.dim),
        "tubelet_embedding/bias": (config.dim,),
    }
    shapes |= _stack_shapes(config, "encoder", *encoder)
    shapes["bridge/kernel"] = (config.dim, config.decoder_dim)
    shapes["mask_token"] = (1, 1, config.decoder_dim)
    shapes |= _stack_shapes(config, "decoder", *decoder)
    shapes["head/kernel"] = (config.decoder_dim, values)
    shapes["head/bias"] = (values,)
    return shapes


def _stack_shapes(
    config: Any, part: str, dim: int, depth: int, heads: int, hidden: int
) -> dict[str, tuple[int, ...]]:
    one = {
        "norm1/gamma": (dim,),
        "norm1/beta": (dim,),
        "attention/qkv/kernel": (dim, 3 * dim),
        "attention/q_bias": (dim,),
        "attention/v_bias": (dim,),
        "attention/projection/kernel": (dim, dim),
        "attention/projection/bias": (dim,),
        "norm2/gamma": (dim,),
        "norm2/beta": (dim,),
        "mlp/hidden/kernel": (dim, hidden),
        "mlp/hidden/bias": (hidden,),
        "mlp/output/kernel": (hidden, dim),
        "mlp/output/bias": (dim,),
    }
    if config.layer_scale > 0:
        one |= {"scale1": (dim,), "scale2": (dim,)}
    if config.cosine_attention:
        one["attention/log_scale"] = (heads, 1, 1)
    shapes = {
        f"{part}/block_{i}/{name}": shape for i in range(depth) for name, shape in one.items()
    }
    return shapes | {f"{part}/norm/gamma": (dim,), f"{part}/norm/beta": (dim,)}


def count_parameters(config: Any) -> int:
    """Trainable values of the pretraining model. COUNT-1."""
    return sum(math.prod(shape) for shape in weight_shapes(config).values())


def count_encoder_parameters(config: Any) -> int:
    """Trainable values of the tubelet embedding and the encoder with its final norm. COUNT-2."""
    return sum(
        math.prod(shape)
        for name, shape in weight_shapes(config).items()
        if name.startswith(("tubelet_embedding/", "encoder/"))
    )


def initialisation(config: Any) -> dict[str, tuple[str, float]]:
    """Every weight's rule: ("uniform", bound), ("constant", value) or ("truncated_normal", std).

    The truncated normal is cut at one standard deviation. INIT-1 to INIT-4.
    """

    def rule(name: str, shape: tuple[int, ...]) -> tuple[str, float]:
        last = name.rsplit("/", 1)[-1]
        if name == "mask_token":
            return "truncated_normal", 0.02
        if name == "tubelet_embedding/bias":
            return "uniform", 1 / math.sqrt(math.prod(config.tubelet) * config.channels)
        if name in ("tubelet_embedding/kernel", "bridge/kernel"):
            return "uniform", 1 / math.sqrt(shape[0])
        if last == "kernel":
            return "uniform", math.sqrt(6 / (shape[0] + shape[1]))
        constants = {
            "gamma": 1.0,
            "log_scale": math.log(10),
            "scale1": config.layer_scale,
            "scale2": config.layer_scale,
            "bias": 0.0,
            "q_bias": 0.0,
            "v_bias": 0.0,
            "beta": 0.0,
        }
        return "constant", constants[last]

    return {name: rule(name, shape) for name, shape in weight_shapes(config).items()}


def random_weights(
    config: Any, generator: np.random.Generator, sigma: float = 0.5
) -> dict[str, np.ndarray]:
    """Weights for parity tests, large enough to show a wrong detail; gammas lie around 1."""
    weights = {}
    for name, shape in weight_shapes(config).items():
        centre = 1.0 if name.endswith("gamma") else 0.0
        weights[name] = centre + sigma * generator.standard_normal(shape)
    return weights


def decayed(name: str, shape: tuple[int, ...]) -> bool:
    """Whether AdamW's weight decay applies to a weight. OPT-2."""
    kept_out = len(shape) == 1 or name.endswith("bias")
    return not kept_out and name != "mask_token" and not name.endswith("log_scale")


def drop_path_rates(rate: float, depth: int) -> np.ndarray:
    """-> (depth,): 0 at the first block, `rate` at the last. BLOCK-7."""
    return np.linspace(0.0, rate, depth)


def learning_rate(
    step: int,
    *,
    base: float,
    minimum: float,
    videos_per_step: int,
    warmup_steps: int,
    total_steps: int,
) -> float:
    """The rate of update `step` (0-based): linear warm-up from 0, then a cosine. OPT-3, OPT-4."""
    peak, floor = base * videos_per_step / 256, minimum * videos_per_step / 256
    if step < warmup_steps:
        return peak * step / max(warmup_steps - 1, 1)
    progress = min((step - warmup_steps) / (total_steps - warmup_steps), 1.0)
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))


def gradient(
    config: Any,
    weights: Weights,
    batch: Batch,
    entries: Sequence[tuple[str, tuple[int, ...]]],
    step: float = 1e-5,
) -> np.ndarray:
    """Central finite differences of the loss at chosen entries (weight name, index)."""
    slopes = []
    for name, index in entries:
        sides = []
        for sign in (1.0, -1.0):
            moved = np.array(weights[name], np.float64)
            moved[index] += sign * step
            sides.append(pretraining_loss(config, {**weights, name: moved}, batch))
        slopes.append((sides[0] - sides[1]) / (2 * step))
    return np.array(slopes)
