"""The oracle for weights, schedules and AdamW: SPEC.md's WEIGHT, INIT and OPT clauses.

FT-4 to FT-7 are here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from spec.gradient_reference import pretraining_gradients
from spec.layers_reference import Weights, in_float64
from spec.reference import Batch, pooling_norm, pretraining_loss

Shapes = dict[str, tuple[int, ...]]


# Weights and their initialisation ----------------------------------------------------------------


def weight_shapes(config: Any) -> Shapes:
    """Return the shape of every trainable weight, in the order of the forward pass. WEIGHT-1."""
    sizes = (config.decoder_dim, config.decoder_depth, config.decoder_heads, config.decoder_mlp_dim)
    return (
        _encoder_shapes(config)
        | (_norm_shapes("encoder/norm", config.dim) if config.encoder_norm else {})
        | {"bridge/kernel": (config.dim, config.decoder_dim)}
        | ({"bridge/bias": (config.decoder_dim,)} if config.bridge_bias else {})
        | {"mask_token": (1, 1, config.decoder_dim)}
        | _stack_shapes(config, "decoder", *sizes)
        | _norm_shapes("decoder/norm", config.decoder_dim)
        | _head_shapes(config.decoder_dim, tubelet_values(config))
    )


def classifier_weight_shapes(config: Any, classes: int, pooling: str = "mean") -> Shapes:
    """Return the shapes for a classifier: no decoder, and one norm that depends on `pooling`. FT-4."""
    norm = _norm_shapes(pooling_norm(pooling), config.dim)
    return _encoder_shapes(config) | norm | _head_shapes(config.dim, classes)


def tubelet_values(config: Any) -> int:
    """Return the number of values per tubelet: P."""
    return math.prod(config.tubelet) * config.channels


def _encoder_shapes(config: Any) -> Shapes:
    """Return the shapes of the tubelet embedding and the encoder's blocks, without its norm."""
    embedding = {
        "tubelet_embedding/kernel": (tubelet_values(config), config.dim),
        "tubelet_embedding/bias": (config.dim,),
    }
    if config.class_token:
        embedding["tubelet_embedding/class_token"] = (1, 1, config.dim)
    if config.learned_positions:
        rows = math.prod(config.grid) + config.class_token
        embedding["tubelet_embedding/positions"] = (rows, config.dim)
    sizes = (config.dim, config.depth, config.heads, config.mlp_dim)
    return embedding | _stack_shapes(config, "encoder", *sizes)


def _norm_shapes(path: str, dim: int) -> Shapes:
    return {f"{path}/gamma": (dim,), f"{path}/beta": (dim,)}


def _head_shapes(dim: int, outputs: int) -> Shapes:
    return {"head/kernel": (dim, outputs), "head/bias": (outputs,)}


def _stack_shapes(config: Any, part: str, dim: int, depth: int, heads: int, hidden: int) -> Shapes:
    one = {
        **_norm_shapes("norm1", dim),
        "attention/qkv/kernel": (dim, 3 * dim),
        "attention/q_bias": (dim,),
        "attention/v_bias": (dim,),
        "attention/projection/kernel": (dim, dim),
        "attention/projection/bias": (dim,),
        **_norm_shapes("norm2", dim),
        "mlp/hidden/kernel": (dim, hidden),
        "mlp/hidden/bias": (hidden,),
        "mlp/output/kernel": (hidden, dim),
        "mlp/output/bias": (dim,),
    }
    if not config.query_value_bias:
        del one["attention/q_bias"], one["attention/v_bias"]
    if config.layer_scale > 0:
        one |= {"scale1": (dim,), "scale2": (dim,)}
    if config.cosine_attention:
        one["attention/log_scale"] = (heads, 1, 1)
    return {f"{part}/block_{i}/{name}": shape for i in range(depth) for name, shape in one.items()}


def initialisation(config: Any) -> dict[str, tuple[str, float]]:
    """Return the initialisation rule of every weight. INIT-1 to INIT-4, IMAGE-1.

    A rule is ("uniform", bound), ("constant", value), or ("normal" or "truncated_normal", standard
    deviation). The truncated normal is cut at one standard deviation.
    """

    def rule(name: str, shape: tuple[int, ...]) -> tuple[str, float]:
        if name == "tubelet_embedding/class_token":
            return "normal", 0.02
        if name in ("mask_token", "tubelet_embedding/positions"):
            return "truncated_normal", 0.02
        if name == "bridge/kernel":
            return "uniform", 1 / math.sqrt(config.dim)
        if name.endswith("/kernel"):
            return "uniform", math.sqrt(6 / (shape[0] + shape[1]))
        return _constant(config, name)

    shapes = weight_shapes(config)
    return {name: rule(name, shape) for name, shape in shapes.items()} | _embedding_rules(config)


def classifier_initialisation(
    config: Any, classes: int, pooling: str = "mean", init_scale: float = 0.001
) -> dict[str, tuple[str, float]]:
    """Return the initialisation rule of every weight of a classifier. FT-5."""

    def rule(name: str) -> tuple[str, float]:
        if name == "head/kernel":
            return "normal", 0.02 * init_scale
        if name.endswith(("/kernel", "/positions", "/class_token")):
            return "normal", 0.02
        return _constant(config, name)

    shapes = classifier_weight_shapes(config, classes, pooling)
    return {name: rule(name) for name in shapes} | _embedding_rules(config)


def _embedding_rules(config: Any) -> dict[str, tuple[str, float]]:
    """Return the rules for the tubelet embedding, whose bias is random too. INIT-2."""
    rule = ("uniform", 1 / math.sqrt(tubelet_values(config)))
    return {"tubelet_embedding/kernel": rule, "tubelet_embedding/bias": rule}


def _constant(config: Any, name: str) -> tuple[str, float]:
    """Return the rule of a weight that starts constant. INIT-4.

    Raises:
        KeyError: No rule covers the name.
    """
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
    return "constant", constants[name.rsplit("/", 1)[-1]]


def random_weights(
    config: Any, generator: np.random.Generator, sigma: float = 0.5
) -> dict[str, np.ndarray]:
    """Draw weights for parity tests, large enough to reveal small errors; gammas lie around 1."""
    return random_weights_of(weight_shapes(config), generator, sigma)


def random_weights_of(
    shapes: Shapes, generator: np.random.Generator, sigma: float = 0.5
) -> dict[str, np.ndarray]:
    """Draw such weights for any table of shapes, such as `classifier_weight_shapes`."""
    weights = {}
    for name, shape in shapes.items():
        centre = 1.0 if name.endswith("gamma") else 0.0
        weights[name] = centre + sigma * generator.standard_normal(shape)
    return weights


# Schedules ---------------------------------------------------------------------------------------


def drop_path_rates(rate: float, depth: int) -> np.ndarray:
    """Return rates (depth,): 0 at the first block, `rate` at the last. BLOCK-7."""
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
    """Return the rate of update `step` (0-based): linear warm-up from 0, then cosine. OPT-3, OPT-4."""
    peak, floor = base * videos_per_step / 256, minimum * videos_per_step / 256
    if step < warmup_steps:
        return peak * step / max(warmup_steps - 1, 1)
    progress = min((step - warmup_steps) / (total_steps - warmup_steps), 1.0)
    return floor + 0.5 * (peak - floor) * (1 + math.cos(math.pi * progress))


def layer_decay_scale(name: str, depth: int, decay: float) -> float:
    """Return the multiplier of a weight's rate: 1 after the encoder's blocks, less before. FT-6."""
    if name.startswith("tubelet_embedding/"):
        layer = 0
    elif name.startswith("encoder/block_"):
        layer = 1 + int(name.split("/")[1].removeprefix("block_"))
    else:
        layer = depth + 1
    return decay ** (depth + 1 - layer)


# AdamW -------------------------------------------------------------------------------------------


def decayed(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether AdamW's weight decay applies to a weight. OPT-2."""
    kept_out = len(shape) == 1 or name.endswith("bias")
    kept_out = kept_out or name.endswith(("mask_token", "class_token", "log_scale", "positions"))
    return not kept_out


def adamw_steps(
    config: Any,
    weights: Weights,
    batches: Iterable[Batch],
    rates: Iterable[float],
    *,
    weight_decay: float = 0.05,
    beta_1: float = 0.9,
    beta_2: float = 0.95,
    epsilon: float = 1e-8,
    layer_decay: float | None = None,
) -> dict[str, np.ndarray]:
    """Pretrain for one update per batch and rate; return the weights. OPT-2, OPT-5, FT-6, FT-7."""
    weights = in_float64(weights)
    first = {name: np.zeros_like(w) for name, w in weights.items()}  # m
    second = {name: np.zeros_like(w) for name, w in weights.items()}  # v
    for step, (batch, rate) in enumerate(zip(batches, rates, strict=True), start=1):
        _, gradients = pretraining_gradients(config, weights, batch)
        for name, g in gradients.items():
            scale = 1 if layer_decay is None else layer_decay_scale(name, config.depth, layer_decay)
            r, w = rate * scale, weights[name]
            if decayed(name, w.shape):
                w = w - r * weight_decay * w
            m = first[name] = beta_1 * first[name] + (1 - beta_1) * g
            v = second[name] = beta_2 * second[name] + (1 - beta_2) * g**2
            spread = np.sqrt(v / (1 - beta_2**step)) + epsilon
            weights[name] = w - r * (m / (1 - beta_1**step)) / spread
    return weights


def moving_averages(values: Iterable[np.ndarray], decay: float) -> np.ndarray:
    """Average a weight's values, of which the first is before any update. OPT-6."""
    first, *updated = (np.asarray(value, np.float64) for value in values)
    average = first
    for value in updated:
        average = decay * average + (1 - decay) * value
    return average


# Finite differences ------------------------------------------------------------------------------


def gradient(
    config: Any,
    weights: Weights,
    batch: Batch,
    entries: Sequence[tuple[str, tuple[int, ...]]],
    step: float = 1e-5,
) -> np.ndarray:
    """Compute central finite differences of the loss at chosen entries (weight name, index)."""
    slopes = []
    for name, index in entries:
        sides = []
        for sign in (1.0, -1.0):
            moved = np.array(weights[name], np.float64)
            moved[index] += sign * step
            sides.append(pretraining_loss(config, {**weights, name: moved}, batch))
        slopes.append((sides[0] - sides[1]) / (2 * step))
    return np.array(slopes)
