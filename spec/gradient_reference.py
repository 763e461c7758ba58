"""The oracle's derivatives: those of the pretraining loss by every weight, in NumPy float64.

One function per operation, in the order of the forward. `slope` is the derivative of the loss by
the operation's output, and of its shape; the function returns the derivative by the input. What it
needs of the forward it computes again. Each weight is used in one place, so nothing is accumulated.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from spec import reference
from spec.reference import Batch, Weights

Gradients = dict[str, np.ndarray]


# Operations without weights ----------------------------------------------------------------------


def gelu(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """y = x F(x), F the normal distribution function: dy / dx = F(x) + x F'(x). BLOCK-5."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    below = (1 + erf(x / math.sqrt(2))) / 2
    return slope * (below + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))


def activation(x: np.ndarray, name: str, slope: np.ndarray) -> np.ndarray:
    """y = f(x), the MLP's: central differences, to 1e-9, of all but the GELU. BLOCK-5, OPTION-1."""
    if name == "gelu":
        return gelu(x, slope)
    above, below = (reference.activate(x + step, name) for step in (1e-5, -1e-5))
    return slope * (above - below) / 2e-5


def softmax(y: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """y = softmax(x) over the last axis, given y: dy_i / dx_j = y_i ((i == j) - y_j). BLOCK-4."""
    return y * (slope - (slope * y).sum(-1, keepdims=True))


def unit(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """y = x / max(|x|, 1e-12): no slope along x, unless it is 1e-12 that divides. BLOCK-8."""
    length = reference.length(x)
    y = x / length
    along = y * (slope * y).sum(-1, keepdims=True)
    return (slope - np.where(length > 1e-12, along, 0.0)) / length


def loss(
    predictions: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> np.ndarray:
    """-> (B, M, P): by the predictions; the target is a constant. LOSS-1, LOSS-2, TARGET-1."""
    weight = np.ones(predictions.shape[:2]) if weight is None else np.asarray(weight, np.float64)
    share = weight / weight.sum() / predictions.shape[-1]  # (B, M)
    return share[..., None] * 2 * (predictions - target)


# Operations with weights -------------------------------------------------------------------------


class Backward:
    """Goes back through a model with `weights` and collects their derivatives in `gradients`."""

    def __init__(self, config: Any, weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.gradients: Gradients = {}

    def dense(self, x: np.ndarray, path: str, slope: np.ndarray) -> np.ndarray:
        """y = x kernel + bias, the bias if there is one."""
        self.gradients[f"{path}/kernel"] = np.einsum("bki,bko->io", x, slope)
        if f"{path}/bias" in self.weights:
            self.gradients[f"{path}/bias"] = slope.sum((0, 1))
        return slope @ self.weights[f"{path}/kernel"].T

    def norm(self, x: np.ndarray, path: str, slope: np.ndarray) -> np.ndarray:
        """y = n gamma + beta, n = (x - mean) / sqrt(variance + epsilon). BLOCK-2."""
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred**2).mean(-1, keepdims=True)
        spread = np.sqrt(variance + reference.norm_epsilon(path, self.config))
        normal = centred / spread
        self.gradients[f"{path}/gamma"] = (slope * normal).sum((0, 1))
        self.gradients[f"{path}/beta"] = slope.sum((0, 1))
        slope = slope * self.weights[f"{path}/gamma"]
        by_mean = slope.mean(-1, keepdims=True)
        by_variance = normal * (slope * normal).mean(-1, keepdims=True)
        return (slope - by_mean - by_variance) / spread

    def attention(self, x: np.ndarray, path: str, heads: int, slope: np.ndarray) -> np.ndarray:
        """y = projection(softmax(scale q k^T) v). BLOCK-3, BLOCK-4, BLOCK-8."""
        raw_q, raw_k, v = reference.queries_keys_values(x, self.weights, path, heads)
        q, k, scale = raw_q, raw_k, raw_q.shape[-1] ** -0.5
        if self.config.cosine_attention:
            q, k = raw_q / reference.length(raw_q), raw_k / reference.length(raw_k)
            log_scale = self.weights[f"{path}/log_scale"]  # (heads, 1, 1)
            scale = np.exp(np.minimum(log_scale, 4.6052))
        logits = scale * (q @ k.swapaxes(-1, -2))  # (B, heads, K, K)
        shares = reference.softmax(logits)

        mixed = reference.join_heads(shares @ v)
        slope = reference.split_heads(self.dense(mixed, f"{path}/projection", slope), heads)
        by_v = shares.swapaxes(-1, -2) @ slope
        by_logits = softmax(shares, slope @ v.swapaxes(-1, -2))
        by_q = scale * by_logits @ k
        by_k = (scale * by_logits).swapaxes(-1, -2) @ q
        if self.config.cosine_attention:
            by_q, by_k = unit(raw_q, by_q), unit(raw_k, by_k)
            by_log_scale = (by_logits * logits).sum((0, 2, 3))[:, None, None]
            # Beyond the clamp there is no slope; at it there is, as with torch's clamp (upstream).
            by_log_scale = np.where(log_scale <= 4.6052, by_log_scale, 0.0)
            self.gradients[f"{path}/log_scale"] = by_log_scale

        by_qkv = np.concatenate([reference.join_heads(part) for part in (by_q, by_k, by_v)], -1)
        by_q, _, by_v = np.split(by_qkv.sum((0, 1)), 3)
        self.gradients |= {f"{path}/q_bias": by_q, f"{path}/v_bias": by_v}
        return self.dense(x, f"{path}/qkv", by_qkv)

    def mlp(self, x: np.ndarray, path: str, slope: np.ndarray) -> np.ndarray:
        """y = output(f(hidden(x))). BLOCK-5, OPTION-1."""
        kernel, bias = self.weights[f"{path}/hidden/kernel"], self.weights[f"{path}/hidden/bias"]
        hidden, name = x @ kernel + bias, self.config.activation
        slope = self.dense(reference.activate(hidden, name), f"{path}/output", slope)
        return self.dense(x, f"{path}/hidden", activation(hidden, name, slope))

    def scale(self, x: np.ndarray, path: str, keep: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """y = keep scale x, keep (B) constant, the scale if there is one. BLOCK-6, BLOCK-7."""
        slope = keep[:, None, None] * slope
        if path not in self.weights:
            return slope
        self.gradients[path] = (slope * x).sum((0, 1))
        return self.weights[path] * slope

    def block(
        self, x: np.ndarray, path: str, heads: int, keep: np.ndarray | None, slope: np.ndarray
    ) -> np.ndarray:
        """y = x + k1 (g1 attention(n1)), z = y + k2 (g2 mlp(n2)). BLOCK-1."""
        weights, config = self.weights, self.config
        keep = np.ones((2, len(x))) if keep is None else np.asarray(keep, np.float64)
        n1 = reference.norm(x, weights, f"{path}/norm1", config)
        attended = reference.attention(
            n1, weights, f"{path}/attention", heads, config.cosine_attention
        )
        y = x + keep[0][:, None, None] * (weights.get(f"{path}/scale1", 1.0) * attended)
        n2 = reference.norm(y, weights, f"{path}/norm2", config)
        hidden = reference.mlp(n2, weights, f"{path}/mlp", config.activation)

        by_hidden = self.scale(hidden, f"{path}/scale2", keep[1], slope)
        by_n2 = self.mlp(n2, f"{path}/mlp", by_hidden)
        slope = slope + self.norm(y, f"{path}/norm2", by_n2)
        by_attended = self.scale(attended, f"{path}/scale1", keep[0], slope)
        by_n1 = self.attention(n1, f"{path}/attention", heads, by_attended)
        return slope + self.norm(x, f"{path}/norm1", by_n1)

    def stack(
        self, inputs: list[np.ndarray], part: str, keep: np.ndarray | None, slope: np.ndarray
    ) -> np.ndarray:
        """The blocks of `part`, given what each of them read, from the last to the first."""
        _, heads = reference.depth_and_heads(self.config, part)
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
    """-> the loss of `reference.pretraining_loss` and its derivative by each of the weights."""
    weights = reference.in_float64(weights)
    visible, decoded = np.asarray(batch["visible"]), np.asarray(batch["decoded"])
    out = reference.forward(
        config, weights, batch, encoder_keep=encoder_keep, decoder_keep=decoder_keep, named=True
    )
    predictions, weight = out["predictions"], batch.get("weight")
    target = reference.target(config, batch["video"], decoded)
    back = Backward(config, weights)

    def stack_values(first: str, part: str) -> list[np.ndarray]:
        """Return the input of each block, and the output of the last one."""
        depth, _ = reference.depth_and_heads(config, part)
        return [out[first], *(out[f"{part}/block_{i}"] for i in range(depth))]

    *inputs, x = stack_values("decoder/input", "decoder")
    seen = out["bridge"].shape[1]  # the decoder reads these first, and nothing is predicted of them
    by_normed = back.dense(out["decoder/norm"], "head", loss(predictions, target, weight))
    slope = np.zeros_like(x)
    slope[:, seen:] = back.norm(x[:, seen:], "decoder/norm", by_normed)
    slope = back.stack(inputs, "decoder", decoder_keep, slope)
    back.gradients["mask_token"] = slope[:, seen:].sum((0, 1), keepdims=True)

    *inputs, x = stack_values("embedded", "encoder")
    by_normed = back.dense(out["encoder/norm"], "bridge", slope[:, :seen])
    slope = back.norm(x, "encoder/norm", by_normed) if config.encoder_norm else by_normed
    slope = back.stack(inputs, "encoder", encoder_keep, slope)
    before = int(config.class_token)  # a token of its own, and the first position's
    back.gradients["tubelet_embedding/class_token"] = slope[:, :before].sum(0, keepdims=True)
    positions = np.zeros((before + config.num_tokens, config.dim))
    positions[:before] = slope[:, :before].sum(0)
    np.add.at(positions, before + visible, slope[:, before:])
    back.gradients["tubelet_embedding/positions"] = positions
    tokens = reference.encoder_tubelets(config, batch["video"], visible)
    back.dense(tokens, "tubelet_embedding", slope[:, before:])
    gradients = {name: back.gradients[name] for name in weights}
    return reference.loss(predictions, target, weight), gradients
