"""The oracle: SPEC.md's forward passes and pretraining loss in NumPy float64, in the paper's order.

A `config` is any object with the fields of the configuration. `weights` maps the names of WEIGHT-1
to arrays. Letters of shapes: B clips; T, H, W, C frames, height, width, channels; N tokens, K of
them; V visible, M decoded; P values per tubelet; D encoder and d decoder width. Random masks and
drop-path are passed in as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spec import layers_reference as layers
from spec.layers_reference import Weights
from spec.position_reference import fixed_positions

Batch = Mapping[str, np.ndarray]


# Clips -> tubelets -------------------------------------------------------------------------------


def unit_video(video: np.ndarray) -> np.ndarray:
    """Convert (B, T, H, W, C) uint8, or float in [0, 1], to float64 in [0, 1]. INPUT-1."""
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
    """Cut (B, T, H, W, C) into row-major tubelets (B, N, P). TUBE-1, TUBE-2.

    The values of a tubelet are ordered by p0, p1, p2, channel.
    """
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
    """Join tubelets (B, N, P) to a video (B, T, H, W, C), the inverse of `tubelets`. TUBE-2."""
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
    """Gather tokens (B, N, X) by ids (B, K) -> (B, K, X), in the order of the ids."""
    return np.stack([sample[chosen] for sample, chosen in zip(tokens, ids, strict=True)])


# Encoder -> decoder -> predictions ---------------------------------------------------------------


def encoder_tubelets(config: Any, video: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the embedding's input (B, K, P): normalised tubelets at ids (B, K). INPUT-2, TUBE-2."""
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
    """Embed the tokens `ids` (B, K) of a video and apply the encoder's blocks, without its norm.

    Returns (B, K, D), with the class token first if there is one. Stores embedded and
    encoder/block_{i} in `out`. EMBED-1, EMBED-2, ENC-1, IMAGE-1.
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
    return layers.stack(x, weights, "encoder", config, keep, out)


def with_class_row(config: Any, table: np.ndarray) -> np.ndarray:
    """Prepend the class token's position, zero, to a table (N, d) if there is one. IMAGE-1."""
    return np.pad(table, ((int(config.class_token), 0), (0, 0)))


def token_count(config: Any, video: np.ndarray) -> int:
    """Return N for a video, which may be longer than the configuration's."""
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
    predictions. V includes the class token if there is one. EMBED-1 to DEC-3, IMAGE-1, IMAGE-2.
    """
    weights = layers.in_float64(weights)
    visible, decoded = np.asarray(batch["visible"]), np.asarray(batch["decoded"])
    out: dict[str, np.ndarray] = {}

    x = encode(config, weights, batch["video"], visible, encoder_keep, out)
    if config.encoder_norm:  # OPTION-3
        x = layers.norm(x, weights, "encoder/norm", config)
    out["encoder/norm"] = x  # (B, V, D)

    positions = fixed_positions(config, batch["video"], config.decoder_dim)
    x = out["bridge"] = x @ weights["bridge/kernel"] + weights.get("bridge/bias", 0.0)  # (B, V, d)
    known = x.copy()
    known[:, int(config.class_token) :] += positions[visible]  # the class token has none: IMAGE-2
    query = weights["mask_token"] + positions[decoded]  # (B, M, d)
    x = out["decoder/input"] = np.concatenate([known, query], axis=1)  # (B, V + M, d)
    x = layers.stack(x, weights, "decoder", config, decoder_keep, out)[:, known.shape[1] :]
    x = out["decoder/norm"] = layers.norm(x, weights, "decoder/norm", config)  # (B, M, d)
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
    """Compute logits (B, classes) in inference. FT-1 for pooling "mean", FT-2 for "first".

    With `named`, returns a dict of every intermediate instead: embedded, encoder/block_{i}, fc_norm
    (B, D) or encoder/norm (B, N, D), logits. N includes the class token if there is one.
    """
    weights, path = layers.in_float64(weights), pooling_norm(pooling)
    out: dict[str, np.ndarray] = {}
    every = np.tile(np.arange(token_count(config, video)), (len(video), 1))  # (B, N)
    x = encode(config, weights, video, every, None, out)
    if pooling == "mean":
        x = x[:, int(config.class_token) :].mean(1)  # IMAGE-3
        x = out[path] = layers.norm(x, weights, path, config)  # (B, D)
    else:
        x = out[path] = layers.norm(x, weights, path, config)  # (B, N, D)
        x = x[:, 0]
    x = out["logits"] = x @ weights["head/kernel"] + weights["head/bias"]  # (B, classes)
    return out if named else x


def pooling_norm(pooling: str) -> str:
    """Return the path of the norm that a kind of pooling uses. FT-4."""
    if pooling not in ("mean", "first"):
        raise ValueError(
            '`pooling` must be "mean" or "first". '
            f'Received: pooling={pooling!r}. Use "mean" where the weights have fc_norm.'
        )
    return "fc_norm" if pooling == "mean" else "encoder/norm"


# Target and loss ---------------------------------------------------------------------------------


def statistics(config: Any, video: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and unbiased variance per channel of a tubelet, each (B, K, 1, C). TARGET-2.

    For MAE's target they are (B, K, 1, 1), over all channels. IMAGE-6.
    """
    pixels = _pixels(config, video, ids)
    axes = (2, 3) if config.mae_target else 2
    return pixels.mean(axes, keepdims=True), pixels.var(axes, ddof=1, keepdims=True)


def target(config: Any, video: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Return the target (B, M, P) of the predictions. TARGET-1 to TARGET-4, IMAGE-6."""
    pixels = _pixels(config, video, decoded)
    if config.norm_pix:
        mean, variance = statistics(config, video, decoded)
        pixels = (pixels - mean) / spread(config, variance)
    return pixels.reshape(*np.shape(decoded), -1)


def spread(config: Any, variance: np.ndarray) -> np.ndarray:
    """Return the divisor of a target's pixels. TARGET-2, IMAGE-6."""
    return np.sqrt(variance + 1e-6) if config.mae_target else np.sqrt(variance) + 1e-6


def _pixels(config: Any, video: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the pixels (B, K, p0 p1 p2, C) of the chosen target tubelets. TARGET-1, IMAGE-6."""
    video = unit_video(video)
    if config.mae_target:
        video = (video - np.asarray(config.mean)) / np.asarray(config.std)
    tokens = take(tubelets(video, config.tubelet), np.asarray(ids))
    return tokens.reshape(*np.shape(ids), -1, np.shape(video)[-1])


def decoded_weight(visible: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Return the weight (B, M): 1 where the decoded token is not visible, else 0. DUAL-3."""
    return np.array(
        [
            [0.0 if token in set(seen) else 1.0 for token in wanted]
            for seen, wanted in zip(np.asarray(visible), np.asarray(decoded), strict=True)
        ]
    )


def loss(
    predictions: np.ndarray, target: np.ndarray, weight: np.ndarray | None = None
) -> np.float64:
    """Compute the mean square of (B, M, P), weighted per token by `weight` (B, M). LOSS-1, LOSS-2."""
    per_token = ((np.asarray(predictions, np.float64) - target) ** 2).mean(-1)  # (B, M)
    weight = np.ones_like(per_token) if weight is None else np.asarray(weight, np.float64)
    return (weight * per_token).sum() / weight.sum()


def pretraining_loss(config: Any, weights: Weights, batch: Batch, **keep: np.ndarray) -> np.float64:
    """Compute the loss of one batch; `batch["weight"]` is optional. LOSS-1, LOSS-2."""
    predictions = forward(config, weights, batch, **keep)
    return loss(predictions, target(config, batch["video"], batch["decoded"]), batch.get("weight"))


def reconstruct(
    config: Any, predictions: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """Convert predictions (B, M, P) to pixels in [0, 1], not clipped. RECON-1, IMAGE-6.

    A target is linear in its pixel, so the pixel is interpolated between the targets of black and white.
    """

    def target_of(level: float) -> np.ndarray:
        if config.mae_target:
            level = (level - np.asarray(config.mean)) / np.asarray(config.std)
        return (level - mean) / spread(config, variance)

    targets = predictions.reshape(*mean.shape[:2], -1, config.channels)
    black, white = target_of(0.0), target_of(1.0)
    return ((targets - black) / (white - black)).reshape(predictions.shape)
