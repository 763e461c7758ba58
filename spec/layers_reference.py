"""The oracle for a stack's layers: SPEC.md's BLOCK and OPTION clauses in NumPy float64.

Letters of shapes: B clips; K tokens; D width. `weights` maps the names of WEIGHT-1 to arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Weights = Mapping[str, np.ndarray]


def in_float64(weights: Weights) -> dict[str, np.ndarray]:
    """Convert the weights to float64, in which the oracle always computes."""
    return {name: np.asarray(value, np.float64) for name, value in weights.items()}


# The block ---------------------------------------------------------------------------------------


def norm(x: np.ndarray, weights: Weights, path: str, config: Any) -> np.ndarray:
    """Apply the LayerNorm with its weights under `path`. Every LayerNorm is computed here."""
    gamma, beta = weights[f"{path}/gamma"], weights[f"{path}/beta"]
    return layer_norm(x, gamma, beta, norm_epsilon(path, config))


def norm_epsilon(path: str, config: Any) -> float:
    """Return the epsilon of the LayerNorm under `path`. OPTION-4."""
    if path in ("decoder/norm", "fc_norm") and config.last_norm_epsilon is not None:
        return config.last_norm_epsilon
    return config.layer_norm_epsilon


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float) -> np.ndarray:
    """Normalise (..., D) by the biased variance, with epsilon inside the root. BLOCK-2."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * gamma + beta


def gelu(x: np.ndarray) -> np.ndarray:
    """Compute the exact GELU by erf, not its tanh approximation. BLOCK-5."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Compute 1 / (1 + e^-x) by tanh, which does not overflow."""
    return (1.0 + np.tanh(x / 2.0)) / 2.0


def activate(x: np.ndarray, name: str) -> np.ndarray:
    """Apply the MLP's activation. BLOCK-5, OPTION-1."""
    match name:
        case "gelu":
            return gelu(x)
        case "gelu_tanh":
            return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
        case "quick_gelu":
            return x * sigmoid(1.702 * x)
        case "relu":
            return np.maximum(x, 0.0)
        case "relu2":
            return np.maximum(x, 0.0) ** 2
        case "relu6":
            return np.clip(x, 0.0, 6.0)
        case "leaky_relu":
            return np.maximum(x, 0.01 * x)
        case "silu":
            return x * sigmoid(x)
        case "mish":
            return x * np.tanh(np.logaddexp(0.0, x))
        case "hard_swish":
            return x * np.clip(x + 3.0, 0.0, 6.0) / 6.0
        case "sigmoid":
            return sigmoid(x)
        case "tanh":
            return np.tanh(x)
        case "linear":
            return x
    raise ValueError(f"`activation` must be one of OPTION-1's. Received: {name!r}.")


def softmax(x: np.ndarray) -> np.ndarray:
    """Compute the softmax over the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """Split (B, K, D) into consecutive heads (B, heads, K, D / heads). BLOCK-3."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def join_heads(x: np.ndarray) -> np.ndarray:
    """Join heads (B, heads, K, D / heads) to (B, K, D), the inverse of `split_heads`. BLOCK-4."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def queries_keys_values(
    x: np.ndarray, weights: Weights, path: str, heads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Project (B, K, D) to q, k and v, each (B, heads, K, D / heads). Keys have no bias. BLOCK-3."""
    qkv = x @ weights[f"{path}/qkv/kernel"]  # (B, K, 3D)
    if f"{path}/q_bias" in weights:  # OPTION-2
        q_bias, v_bias = weights[f"{path}/q_bias"], weights[f"{path}/v_bias"]
        qkv = qkv + np.concatenate([q_bias, np.zeros_like(q_bias), v_bias])
    q, k, v = np.split(qkv, 3, axis=-1)
    return split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)


def length(x: np.ndarray) -> np.ndarray:
    """Return the lengths (..., 1) by which cosine attention divides queries or keys. BLOCK-8."""
    return np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def attention(x: np.ndarray, weights: Weights, path: str, heads: int, cosine: bool) -> np.ndarray:
    """Apply self-attention: (B, K, D) -> (B, K, D). BLOCK-3, BLOCK-4, BLOCK-8."""
    q, k, v = queries_keys_values(x, weights, path, heads)
    if cosine:
        q, k = q / length(q), k / length(k)
        scale = np.exp(np.minimum(weights[f"{path}/log_scale"], 4.6052))  # (heads, 1, 1)
    else:
        scale = q.shape[-1] ** -0.5
    mixed = join_heads(softmax(scale * (q @ k.swapaxes(-1, -2))) @ v)  # (B, K, D)
    return mixed @ weights[f"{path}/projection/kernel"] + weights[f"{path}/projection/bias"]


def mlp(x: np.ndarray, weights: Weights, path: str, activation: str) -> np.ndarray:
    """Apply the MLP: (B, K, D) -> (B, K, D). BLOCK-5, OPTION-1."""
    hidden = x @ weights[f"{path}/hidden/kernel"] + weights[f"{path}/hidden/bias"]
    hidden = activate(hidden, activation)
    return hidden @ weights[f"{path}/output/kernel"] + weights[f"{path}/output/bias"]


def block(
    x: np.ndarray,
    weights: Weights,
    path: str,
    config: Any,
    *,
    heads: int,
    keep: np.ndarray | None = None,
) -> np.ndarray:
    """Apply a block: (B, K, D) -> (B, K, D). BLOCK-1, BLOCK-6, BLOCK-7.

    `keep` (2, B) multiplies the two branches.
    """
    keep = np.ones((2, len(x))) if keep is None else np.asarray(keep, np.float64)
    scale1, scale2 = weights.get(f"{path}/scale1", 1.0), weights.get(f"{path}/scale2", 1.0)
    seen = norm(x, weights, f"{path}/norm1", config)
    attended = attention(seen, weights, f"{path}/attention", heads, config.cosine_attention)
    x = x + keep[0][:, None, None] * (scale1 * attended)
    seen = norm(x, weights, f"{path}/norm2", config)
    hidden = mlp(seen, weights, f"{path}/mlp", config.activation)
    return x + keep[1][:, None, None] * (scale2 * hidden)


def depth_and_heads(config: Any, part: str) -> tuple[int, int]:
    """Return depth and heads of the stack "encoder" or "decoder"."""
    sizes = {
        "encoder": (config.depth, config.heads),
        "decoder": (config.decoder_depth, config.decoder_heads),
    }
    return sizes[part]


def stack(
    x: np.ndarray,
    weights: Weights,
    part: str,
    config: Any,
    keep: np.ndarray | None,
    out: dict[str, np.ndarray],
) -> np.ndarray:
    """Apply the blocks of `part`, (B, K, D) -> (B, K, D), and store each output in `out`."""
    depth, heads = depth_and_heads(config, part)
    for i in range(depth):
        path, kept = f"{part}/block_{i}", None if keep is None else keep[i]
        x = out[path] = block(x, weights, path, config, heads=heads, keep=kept)
    return x
