"""The oracle for gradients of the pretraining loss by every weight, in NumPy float64.

There is one function per operation, in the order of the forward pass. `slope` is the derivative of
the loss by the operation's output and has its shape. The function returns the derivative by the
input and recomputes the forward values that it needs. Each weight is used once, so no gradients are
accumulated.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spec import layers_reference as layers
from spec import reference
from spec.layers_reference import Weights
from spec.reference import Batch

Gradients = dict[str, np.ndarray]


# Operations without weights ----------------------------------------------------------------------


def gelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Differentiate y = x F(x), with F the normal distribution function. BLOCK-5.

    dy / dx = F(x) + x F'(x).
    """
    erf = np.vectorize(math.erf, otypes=[np.float64])
    below = (1 + erf(x / math.sqrt(2))) / 2
    return slope * (below + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))


def activation(x: np.ndarray, name: str, slope: np.ndarray) -> np.ndarray:
    """Differentiate the MLP's activation y = f(x). BLOCK-5, OPTION-1.

    All but the GELU use central differences, which are accurate to 1e-9.
    """
    if name == "gelu":
        return gelu(x, slope)
    above, below = (layers.activate(x + step, name) for step in (1e-5, -1e-5))
    return slope * (above - below) / 2e-5


def softmax(y: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Differentiate y = softmax(x) over the last axis, given y. BLOCK-4.

    dy_i / dx_j = y_i ((i == j) - y_j).
    """
    return y * (slope - (slope * y).sum(-1, keepdims=True))


def unit(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Differentiate y = x / max(|x|, 1e-12). BLOCK-8.

    The slope along x vanishes, unless the divisor is 1e-12.
    """
    length = layers.length(x)
    y = x / length
    along = y * (slope * y).sum(-1, keepdims=True)
    return (slope - np.where(length > 1e-12, along, 0.0)) / length


def loss(
    predictions: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """Differentiate the loss by the predictions (B, M, P). LOSS-1, LOSS-2, TARGET-1.

    The target is a constant.
    """
    weight = np.ones(predictions.shape[:2]) if weight is None else np.asarray(weight, np.float64)
    share = weight / weight.sum() / predictions.shape[-1]  # (B, M)
    return share[..., None] * 2 * (predictions - target)


# Operations with weights -------------------------------------------------------------------------


class Backward:
    """The backward pass of a model, which collects the derivatives by `weights` in `gradients`."""

    def __init__(self, config: Any, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.gradients: Gradients = {}

    def dense(self, x: np.ndarray, path: str, slope: np.ndarray) -> np.ndarray:
        """Differentiate y = x kernel + bias, or y = x kernel if there is no bias."""
        self.gradients[f"{path}/kernel"] = np.einsum("bki,bko->io", x, slope)
        if f"{path}/bias" in self.weights:
            self.gradients[f"{path}/bias"] = slope.sum((0, 1))
        return slope @ self.weights[f"{path}/kernel"].T

    def norm(self, x: np.ndarray, path: str, slope: np.ndarray) -> np.ndarray:
        """Differentiate y = n gamma + beta, n = (x - mean) / sqrt(variance + epsilon). BLOCK-2."""
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        spread = np.sqrt(variance + layers.norm_epsilon(path, self.config))
        normal = centred / spread
        self.gradients[f"{path}/gamma"] = (slope * normal).sum((0, 1))
        self.gradients[f"{path}/beta"] = slope.sum((0, 1))
        slope = slope * self.weights[f"{path}/gamma"]
        by_mean = slope.mean(-1, keepdims=True)
        by_variance = normal * (slope * normal).mean(-1, keepdims=True)
        return (slope - by_mean - by_variance) / spread

    def attention(self, x: np.ndarray, path: str, heads: int, slope: np.ndarray) -> np.ndarray:
        """Differentiate y = projection(softmax(scale q k^T) v). BLOCK-3, BLOCK-4, BLOCK-8."""
        raw_q, raw_k, v = layers.queries_keys_values(x, self.weights, path, heads)
        q, k, scale = raw_q, raw_k, raw_q.shape[-1] ** -0.5
        if self.config.cosine_attention:
            q, k = raw_q / layers.length(raw_q), raw_k / layers.length(raw_k)
            log_scale = self.weights[f"{path}/log_scale"]  # (heads, 1, 1)
            scale = np.exp(np.minimum(log_scale, 4.6052))
        logits = scale * (q @ k.swapaxes(-1, -2))  # (B, heads, K, K)
        shares = layers.softmax(logits)

        mixed = layers.join_heads(shares @ v)
        slope = layers.split_heads(self.dense(mixed, f"{path}/projection", slope), heads)
        by_v = shares.swapaxes(-1, -2) @ slope
        by_logits = softmax(shares, slope @ v.swapaxes(-1, -2))
        by_q = scale * by_logits @ k
        by_k = (scale * by_logits).swapaxes(-1, -2) @ q
        if self.config.cosine_attention:
            by_q, by_k = unit(raw_q, by_q), unit(raw_k, by_k)
            by_log_scale = (by_logits * logits).sum((0, 2, 3))[:, None, None]
            # The slope is zero above the clamp but not at it, as with torch's clamp (upstream).
            by_log_scale = np.where(log_scale <= 4.6052, by_log_scale, 0.0)
            self.gradients[f"{path}/log_scale"] = by_log_scale

        by_qkv = np.concatenate([layers.join_heads(part) for part in (by_q, by_k, by_v)], -1)
        by_q, _, by_v = np.split(by_qkv.sum((0, 1)), 3)
        self.gradients |= {f"{path}/q_bias": by_q, f"{path}/v_bias": by_v}
        return self.dense(x, f"{path}/qkv", by_qkv)

    def mlp(self, x: np.ndarray, path: str, slope: np.ndarray) -> np.ndarray:
        """Differentiate y = output(f(hidden(x))). BLOCK-5, OPTION-1."""
        kernel, bias = self.weights[f"{path}/hidden/kernel"], self.weights[f"{path}/hidden/bias"]
        hidden, name = x @ kernel + bias, self.config.activation
        slope = self.dense(layers.activate(hidden, name), f"{path}/output", slope)
        return self.dense(x, f"{path}/hidden", activation(hidden, name, slope))

    def scale(self, x: np.ndarray, path: str, keep: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Differentiate y = keep scale x, with constant keep (B). BLOCK-6, BLOCK-7.

        Without a weight at `path`, the scale is 1.
        """
        slope = keep[:, None, None] * slope
        if path not in self.weights:
            return slope
        self.gradients[path] = (slope * x).sum((0, 1))
        return self.weights[path] * slope

    def block(
        self, x: np.ndarray, path: str, heads: int, keep: np.ndarray | None, slope: np.ndarray
    ) -> np.ndarray:
        """Differentiate y = x + k1 (g1 attention(n1)), z = y + k2 (g2 mlp(n2)). BLOCK-1."""
        weights, config = self.weights, self.config
        keep = np.ones((2, len(x))) if keep is None else np.asarray(keep, np.float64)
        n1 = layers.norm(x, weights, f"{path}/norm1", config)
        attended = layers.attention(
            n1, weights, f"{path}/attention", heads, config.cosine_attention
        )
        y = x + keep[0][:, None, None] * (weights.get(f"{path}/scale1", 1.0) * attended)
        n2 = layers.norm(y, weights, f"{path}/norm2", config)
        hidden = layers.mlp(n2, weights, f"{path}/mlp", config.activation)

        by_hidden = self.scale(hidden, f"{path}/scale2", keep[1], slope)
        by_n2 = self.mlp(n2, f"{path}/mlp", by_hidden)
        slope = slope + self.norm(y, f"{path}/norm2", by_n2)
        by_attended = self.scale(attended, f"{path}/scale1", keep[0], slope)
        by_n1 = self.attention(n1, f"{path}/attention", heads, by_attended)
        return slope + self.norm(x, f"{path}/norm1", by_n1)

    def stack(
        self, inputs: list[np.ndarray], part: str, keep: np.ndarray | None, slope: np.ndarray
    ) -> np.ndarray:
        """Differentiate the blocks of `part`, given the input of each, from last to first."""
        _, heads = layers.depth_and_heads(self.config, part)
        for i in reversed(range(len(inputs))):
            kept = None if keep is None else keep[i]
            slope = self.block(inputs[i], f"{part}/block_{i}", heads, kept, slope)
        return slope


# Loss -> predictions -> decoder -> encoder -------------------------------------------------------


def pretraining_gradients(
    config: Any,
    weights: Weights,
    batch: Batch,
    *,
    encoder_keep: np.ndarray | None = None,
    decoder_keep: np.ndarray | None = None,
) -> tuple[np.float64, Gradients]:
    """Return the loss of `reference.pretraining_loss` and its derivative by each weight."""
    weights = layers.in_float64(weights)
    visible, decoded = np.asarray(batch["visible"]), np.asarray(batch["decoded"])
    out = reference.forward(
        config, weights, batch, encoder_keep=encoder_keep, decoder_keep=decoder_keep, named=True
    )
    predictions, weight = out["predictions"], batch.get("weight")
    target = reference.target(config, batch["video"], decoded)
    back = Backward(config, weights)

    def stack_values(first: str, part: str) -> list[np.ndarray]:
        """Return the input of each block, and the output of the last."""
        depth, _ = layers.depth_and_heads(config, part)
        return [out[first], *(out[f"{part}/block_{i}"] for i in range(depth))]

    *inputs, x = stack_values("decoder/input", "decoder")
    seen = out["bridge"].shape[1]  # the decoder reads these first; they have no predictions
    by_normed = back.dense(out["decoder/norm"], "head", loss(predictions, target, weight))
    slope = np.zeros_like(x)
    slope[:, seen:] = back.norm(x[:, seen:], "decoder/norm", by_normed)
    slope = back.stack(inputs, "decoder", decoder_keep, slope)
    back.gradients["mask_token"] = slope[:, seen:].sum((0, 1), keepdims=True)

    *inputs, x = stack_values("embedded", "encoder")
    by_normed = back.dense(out["encoder/norm"], "bridge", slope[:, :seen])
    slope = back.norm(x, "encoder/norm", by_normed) if config.encoder_norm else by_normed
    slope = back.stack(inputs, "encoder", encoder_keep, slope)
    before = int(config.class_token)  # the class token has the first position
    back.gradients["tubelet_embedding/class_token"] = slope[:, :before].sum(0, keepdims=True)
    positions = np.zeros((before + config.num_tokens, config.dim))
    positions[:before] = slope[:, :before].sum(0)
    np.add.at(positions, before + visible, slope[:, before:])
    back.gradients["tubelet_embedding/positions"] = positions
    tokens = reference.encoder_tubelets(config, batch["video"], visible)
    back.dense(tokens, "tubelet_embedding", slope[:, before:])
    gradients = {name: back.gradients[name] for name in weights}
    return reference.loss(predictions, target, weight), gradients
