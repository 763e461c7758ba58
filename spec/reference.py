"""The oracle: SPEC.md's forwards and pretraining loss in NumPy float64, in the paper's order.

A `config` is any object with the fields of the configuration; `weights` maps the names of WEIGHT-1
to arrays. Letters of shapes: B clips; T, H, W, C frames, height, width, channels; N tokens, K of
them; V visible, M decoded; P values per tubelet; D encoder and d decoder width. Randomness (masks,
drop-path) comes in as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spec.position_reference import resize_positions

Weights = Mapping[str, np.ndarray]
Batch = Mapping[str, np.ndarray]


def in_float64(weights: Weights) -> dict[str, np.ndarray]:
    """Return the weights in float64, in which the oracle always computes."""
    return {name: np.asarray(value, np.float64) for name, value in weights.items()}


# Clips -> tubelets -------------------------------------------------------------------------------


def unit_video(video: np.ndarray) -> np.ndarray:
    """(B, T, H, W, C) uint8 or float in [0, 1] -> float64 in [0, 1]. INPUT-1."""
    video = np.asarray(video)
    if video.dtype == np.uint8:
        return video / 255.0
    if np.issubdtype(video.dtype, np.floating):
        return video.astype(np.float64)
    raise ValueError(
        "`video` must be uint8 in 0..255 or floating point in [0, 1]. "
        f"Received: dtype={video.dtype}. Cast it to uint8."
    )


def tubelets(video: np.ndarray, tubelet: Sequence[int]) -> np.ndarray:
    """(B, T, H, W, C) -> (B, N, P): tokens by t, h, w; in one p0, p1, p2, channel. TUBE-1, -2."""
    batch, frames, height, width, channels = video.shape
    p0, p1, p2 = tubelet
    for axis, size, part in (("frames", frames, p0), ("height", height, p1), ("width", width, p2)):
        if size % part:
            raise ValueError(
                f"`{axis}` must be a multiple of the tubelet. "
                f"Received: {axis}={size}, tubelet={tuple(tubelet)}. Use {size - size % part} or "
                f"{size - size % part + part}."
            )
    t, h, w = frames // p0, height // p1, width // p2
    tokens = np.empty((batch, t * h * w, p0 * p1 * p2 * channels), video.dtype)
    for ti in range(t):
        for hi in range(h):
            for wi in range(w):
                piece = video[
                    :,
                    ti * p0 : (ti + 1) * p0,
                    hi * p1 : (hi + 1) * p1,
                    wi * p2 : (wi + 1) * p2,
                ]
                tokens[:, (ti * h + hi) * w + wi] = piece.reshape(batch, -1)
    return tokens


def untubelets(
    tokens: np.ndarray, grid: Sequence[int], tubelet: Sequence[int], channels: int = 3
) -> np.ndarray:
    """(B, N, P) -> (B, T, H, W, C): the inverse of `tubelets`. TUBE-2."""
    t, h, w = grid
    p0, p1, p2 = tubelet
    video = np.empty((len(tokens), t * p0, h * p1, w * p2, channels), tokens.dtype)
    for token in range(t * h * w):
        ti, hi, wi = token // (h * w), token // w % h, token % w
        video[:, ti * p0 : (ti + 1) * p0, hi * p1 : (hi + 1) * p1, wi * p2 : (wi + 1) * p2] = (
            tokens[:, token].reshape(-1, p0, p1, p2, channels)
        )
    return video


def take(tokens: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(B, N, X), (B, K) ids -> (B, K, X), in the order of the ids."""
    return np.stack([sample[chosen] for sample, chosen in zip(tokens, ids, strict=True)])


def sinusoid_positions(count: int, dim: int) -> np.ndarray:
    """-> (count, dim) float64: one-dimensional sinusoid over the flattened token id. POS-1."""
    position = np.arange(count, dtype=np.float64)[:, None]
    column = np.arange(dim)[None, :]
    angle = position / np.power(10000.0, 2 * (column // 2) / dim)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle))


def planar_positions(height: int, width: int, dim: int) -> np.ndarray:
    """-> (height width, dim) float64: sines and cosines of the column, then of the row. IMAGE-4."""
    rows, columns = np.divmod(np.arange(height * width), width)
    frequency = 10000.0 ** (-np.arange(dim // 4) / (dim // 4))
    across, down = (np.outer(place, frequency) for place in (columns, rows))
    return np.concatenate([np.sin(across), np.cos(across), np.sin(down), np.cos(down)], axis=1)


def fixed_positions(config: Any, video: np.ndarray, dim: int) -> np.ndarray:
    """-> (N, dim): the table for this very video, which may be longer than the configuration's. POS-4."""
    grid = [size // part for size, part in zip(np.shape(video)[1:4], config.tubelet, strict=True)]
    made_for = config.position_grid or grid
    if config.planar_positions:
        table = planar_positions(*made_for[1:], dim)
    else:
        table = sinusoid_positions(math.prod(made_for), dim)
    return resize_positions(table, made_for, grid) if config.position_grid else table


# The block ---------------------------------------------------------------------------------------


def norm(x: np.ndarray, weights: Weights, path: str, config: Any) -> np.ndarray:
    """(..., D) -> (..., D): the LayerNorm whose weights lie under `path`; all go through here."""
    gamma, beta = weights[f"{path}/gamma"], weights[f"{path}/beta"]
    return layer_norm(x, gamma, beta, norm_epsilon(path, config))


def norm_epsilon(path: str, config: Any) -> float:
    """Return the epsilon of the LayerNorm whose weights lie under `path`. OPTION-4."""
    if path in ("decoder/norm", "fc_norm") and config.last_norm_epsilon is not None:
        return config.last_norm_epsilon
    return config.layer_norm_epsilon


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, epsilon: float) -> np.ndarray:
    """(..., D) -> (..., D): biased variance, epsilon inside the root. BLOCK-2."""
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * gamma + beta


def gelu(x: np.ndarray) -> np.ndarray:
    """x times the normal distribution function, exact, not the tanh form. BLOCK-5."""
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), by the tangent, which does not overflow."""
    return (1.0 + np.tanh(x / 2.0)) / 2.0


def activate(x: np.ndarray, name: str) -> np.ndarray:
    """(..., D) -> (..., D): the MLP's activation. BLOCK-5, OPTION-1."""
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
    """(..., keys) -> the same shape, summing to 1 over the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def split_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, K, D) -> (B, heads, K, D / heads): consecutive heads. BLOCK-3."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def join_heads(x: np.ndarray) -> np.ndarray:
    """(B, heads, K, D / heads) -> (B, K, D): the inverse of `split_heads`. BLOCK-4."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def queries_keys_values(
    x: np.ndarray, weights: Weights, path: str, heads: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B, K, D) -> three of (B, heads, K, D / heads); no key bias. BLOCK-3."""
    qkv = x @ weights[f"{path}/qkv/kernel"]  # (B, K, 3D)
    if f"{path}/q_bias" in weights:  # OPTION-2
        q_bias, v_bias = weights[f"{path}/q_bias"], weights[f"{path}/v_bias"]
        qkv = qkv + np.concatenate([q_bias, np.zeros_like(q_bias), v_bias])
    q, k, v = np.split(qkv, 3, axis=-1)
    return split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)


def length(x: np.ndarray) -> np.ndarray:
    """(..., d) -> (..., 1): what cosine attention divides a query or a key by. BLOCK-8."""
    return np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def attention(x: np.ndarray, weights: Weights, path: str, heads: int, cosine: bool) -> np.ndarray:
    """(B, K, D) -> (B, K, D): self-attention. BLOCK-3, BLOCK-4, BLOCK-8."""
    q, k, v = queries_keys_values(x, weights, path, heads)
    if cosine:
        q, k = q / length(q), k / length(k)
        scale = np.exp(np.minimum(weights[f"{path}/log_scale"], 4.6052))  # (heads, 1, 1)
    else:
        scale = q.shape[-1] ** -0.5
    mixed = join_heads(softmax(scale * (q @ k.swapaxes(-1, -2))) @ v)  # (B, K, D)
    return mixed @ weights[f"{path}/projection/kernel"] + weights[f"{path}/projection/bias"]


def mlp(x: np.ndarray, weights: Weights, path: str, activation: str) -> np.ndarray:
    """(B, K, D) -> (B, K, D). BLOCK-5, OPTION-1."""
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
    """(B, K, D) -> (B, K, D). `keep` (2, B) multiplies the branches. BLOCK-1, -6, -7."""
    keep = np.ones((2, len(x))) if keep is None else np.asarray(keep, np.float64)
    scale1, scale2 = weights.get(f"{path}/scale1", 1.0), weights.get(f"{path}/scale2", 1.0)
    seen = norm(x, weights, f"{path}/norm1", config)
    attended = attention(seen, weights, f"{path}/attention", heads, config.cosine_attention)
    x = x + keep[0][:, None, None] * (scale1 * attended)
    seen = norm(x, weights, f"{path}/norm2", config)
    hidden = mlp(seen, weights, f"{path}/mlp", config.activation)
    return x + keep[1][:, None, None] * (scale2 * hidden)


def depth_and_heads(config: Any, part: str) -> tuple[int, int]:
    """Return the depth and heads of the stack "encoder" or "decoder"."""
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
    """(B, K, D) -> (B, K, D): the blocks of `part`, each one's output put into `out`."""
    depth, heads = depth_and_heads(config, part)
    for i in range(depth):
        path, kept = f"{part}/block_{i}", None if keep is None else keep[i]
        x = out[path] = block(x, weights, path, config, heads=heads, keep=kept)
    return x


# Encoder -> decoder -> predictions ---------------------------------------------------------------


def encoder_tubelets(config: Any, video: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(B, T, H, W, C), ids (B, K) -> (B, K, P): what the embedding reads. INPUT-2, TUBE-2."""
    video = (unit_video(video) - np.asarray(config.mean)) / np.asarray(config.std)
    return take(tubelets(video, config.tubelet), ids)


def encode(
    config: Any,
    weights: Weights,
    video: np.ndarray,
    ids: np.ndarray,
    keep: np.ndarray | None,
    out: dict[str, np.ndarray],
) -> np.ndarray:
    """Embeds the tokens `ids` (B, K) of a video and runs the encoder's blocks, without its norm.

    -> (B, K, D), the class token first, if there is one; puts embedded and encoder/block_{i} into
    `out`. EMBED-1, EMBED-2, ENC-1, IMAGE-1.
    """
    tokens = encoder_tubelets(config, video, ids)
    x = tokens @ weights["tubelet_embedding/kernel"] + weights["tubelet_embedding/bias"]
    positions = weights.get("tubelet_embedding/positions")  # POS-5
    if positions is None:
        positions = with_class_row(config, fixed_positions(config, video, config.dim))
    x = x + positions[int(config.class_token) + np.asarray(ids)]
    if config.class_token:
        first = weights["tubelet_embedding/class_token"] + positions[0]
        x = np.concatenate([np.repeat(first, len(x), axis=0), x], axis=1)
    out["embedded"] = x
    return stack(x, weights, "encoder", config, keep, out)


def with_class_row(config: Any, table: np.ndarray) -> np.ndarray:
    """(N, d) -> (N, d), or (1 + N, d): the class token's position, zero, before the others. IMAGE-1."""
    return np.pad(table, ((int(config.class_token), 0), (0, 0)))


def token_count(config: Any, video: np.ndarray) -> int:
    """N of this very video, which may be longer than the configuration's."""
    return math.prod(np.shape(video)[1:4]) // math.prod(config.tubelet)


def forward(
    config: Any,
    weights: Weights,
    batch: Batch,
    *,
    encoder_keep: np.ndarray | None = None,
    decoder_keep: np.ndarray | None = None,
    named: bool = False,
) -> Any:
    """Predict the decoded tubelets: batch (video, visible (B, V), decoded (B, M)) -> (B, M, P).

    `encoder_keep` (depth, 2, B) and `decoder_keep` (decoder_depth, 2, B) are the drop-path
    multipliers of BLOCK-7. With `named`, returns a dict of every intermediate instead: embedded,
    encoder/block_{i}, encoder/norm, bridge, decoder/input, decoder/block_{i}, decoder/norm,
    predictions. EMBED-1 to DEC-3; with a class token, V counts it too: IMAGE-1, IMAGE-2.
    """
    weights = in_float64(weights)
    visible, decoded = np.asarray(batch["visible"]), np.asarray(batch["decoded"])
    out: dict[str, np.ndarray] = {}

    x = encode(config, weights, batch["video"], visible, encoder_keep, out)
    if config.encoder_norm:  # OPTION-3
        x = norm(x, weights, "encoder/norm", config)
    out["encoder/norm"] = x  # (B, V, D)

    positions = fixed_positions(config, batch["video"], config.decoder_dim)
    x = out["bridge"] = x @ weights["bridge/kernel"] + weights.get("bridge/bias", 0.0)  # (B, V, d)
    known = x.copy()
    known[:, int(config.class_token) :] += positions[visible]  # the class token's is 0: IMAGE-2
    query = weights["mask_token"] + positions[decoded]  # (B, M, d)
    x = out["decoder/input"] = np.concatenate([known, query], axis=1)  # (B, V + M, d)
    x = stack(x, weights, "decoder", config, decoder_keep, out)[:, known.shape[1] :]
    x = out["decoder/norm"] = norm(x, weights, "decoder/norm", config)  # (B, M, d)
    x = out["predictions"] = x @ weights["head/kernel"] + weights["head/bias"]  # (B, M, P)
    return out if named else x


# All tokens -> classes ---------------------------------------------------------------------------


def classify(
    config: Any,
    weights: Weights,
    video: np.ndarray,
    *,
    pooling: str = "mean",
    named: bool = False,
) -> Any:
    """(B, T, H, W, C) -> logits (B, classes), in inference. FT-1 ("mean"), FT-2 ("first").

    With `named`, returns a dict of every intermediate instead: embedded, encoder/block_{i}, fc_norm
    (B, D) or encoder/norm (B, N, D), logits; with a class token, N counts it too.
    """
    weights, path = in_float64(weights), pooling_norm(pooling)
    out: dict[str, np.ndarray] = {}
    every = np.tile(np.arange(token_count(config, video)), (len(video), 1))  # (B, N)
    x = encode(config, weights, video, every, None, out)
    if pooling == "mean":
        x = x[:, int(config.class_token) :].mean(1)  # IMAGE-3
        x = out[path] = norm(x, weights, path, config)  # (B, D)
    else:
        x = out[path] = norm(x, weights, path, config)  # (B, N, D)
        x = x[:, 0]
    x = out["logits"] = x @ weights["head/kernel"] + weights["head/bias"]  # (B, classes)
    return out if named else x


def pooling_norm(pooling: str) -> str:
    """The path of the norm that a kind of pooling has. FT-4."""
    if pooling not in ("mean", "first"):
        raise ValueError(
            '`pooling` must be "mean" or "first". '
            f'Received: pooling={pooling!r}. Use "mean" where the weights have fc_norm.'
        )
    return "fc_norm" if pooling == "mean" else "encoder/norm"


# Target and loss ---------------------------------------------------------------------------------


def statistics(config: Any, video: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """-> mean, unbiased variance, each (B, K, 1, C): per channel of a tubelet. TARGET-2.

    With MAE's target (B, K, 1, 1), of all channels together. IMAGE-6.
    """
    pixels = _pixels(config, video, ids)
    axes = (2, 3) if config.mae_target else 2
    return pixels.mean(axes, keepdims=True), pixels.var(axes, ddof=1, keepdims=True)


def target(config: Any, video: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """-> (B, M, P): what the decoder has to predict. TARGET-1 to TARGET-4, IMAGE-6."""
    pixels = _pixels(config, video, decoded)
    if config.norm_pix:
        mean, variance = statistics(config, video, decoded)
        pixels = (pixels - mean) / spread(config, variance)
    return pixels.reshape(*np.shape(decoded), -1)


def spread(config: Any, variance: np.ndarray) -> np.ndarray:
    """Return the divisor of a target's pixels. TARGET-2, IMAGE-6."""
    return np.sqrt(variance + 1e-6) if config.mae_target else np.sqrt(variance) + 1e-6


def _pixels(config: Any, video: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """-> (B, K, p0 p1 p2, C): the chosen tubelets of what a target is cut from. TARGET-1, IMAGE-6."""
    video = unit_video(video)
    if config.mae_target:
        video = (video - np.asarray(config.mean)) / np.asarray(config.std)
    tokens = take(tubelets(video, config.tubelet), np.asarray(ids))
    return tokens.reshape(*np.shape(ids), -1, np.shape(video)[-1])


def decoded_weight(visible: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """(B, V), (B, M) -> (B, M): 1 where the decoded token is not visible, else 0. DUAL-3."""
    return np.array(
        [
            [0.0 if token in set(seen) else 1.0 for token in wanted]
            for seen, wanted in zip(np.asarray(visible), np.asarray(decoded), strict=True)
        ]
    )


def loss(
    predictions: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> np.float64:
    """(B, M, P) twice, weight (B, M) or None: mean square, weighted by token. LOSS-1, -2."""
    per_token = ((np.asarray(predictions, np.float64) - target) ** 2).mean(-1)  # (B, M)
    weight = np.ones_like(per_token) if weight is None else np.asarray(weight, np.float64)
    return (weight * per_token).sum() / weight.sum()


def pretraining_loss(config: Any, weights: Weights, batch: Batch, **keep: np.ndarray) -> np.float64:
    """Forward, target and loss of one batch; `batch["weight"]` is optional. LOSS-1, LOSS-2."""
    predictions = forward(config, weights, batch, **keep)
    return loss(predictions, target(config, batch["video"], batch["decoded"]), batch.get("weight"))


def reconstruct(
    config: Any, predictions: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """(B, M, P) and `statistics` -> (B, M, P) pixels of [0, 1], not clipped. RECON-1, IMAGE-6.

    A target is linear in its pixel: read the pixel off the line through the targets of black and white.
    """

    def target_of(level: float) -> np.ndarray:
        if config.mae_target:
            level = (level - np.asarray(config.mean)) / np.asarray(config.std)
        return (level - mean) / spread(config, variance)

    targets = predictions.reshape(*mean.shape[:2], -1, config.channels)
    black, white = target_of(0.0), target_of(1.0)
    return ((targets - black) / (white - black)).reshape(predictions.shape)
