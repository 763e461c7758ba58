"""The oracle's windows of long videos and probes of frozen features: FEATURE and PROBE clauses."""

from __future__ import annotations

import numpy as np

from spec import reference


def windows(count: int, frames: int, sampling_stride: int, stride: int) -> list[list[int]]:
    """FEATURE-1: the positions of each window's frames in a video of `count` frames."""
    found = []
    start = 0
    while not found or start + (frames - 1) * sampling_stride + 1 <= count:
        found.append([min(start + i * sampling_stride, count - 1) for i in range(frames)])
        start += stride
    return found


def window_times(
    count: int, frames: int, sampling_stride: int, stride: int, rate: float
) -> list[tuple[float, float]]:
    """FEATURE-2: seconds at which each window begins and ends, `rate` frames per second."""
    return [
        (chosen[0] / rate, (chosen[-1] + 1) / rate)
        for chosen in windows(count, frames, sampling_stride, stride)
    ]


def standardised(training: np.ndarray, features: np.ndarray) -> np.ndarray:
    """PROBE-1: (n, D) features of the training views and (m, D) others -> (m, D)."""
    return (features - training.mean(axis=0)) / training.std(axis=0)


def attentive_logits(weights: dict, tokens: np.ndarray, heads: int) -> np.ndarray:
    """PROBE-2: tokens (B, N, D) -> logits (B, K), with a key and a value of each token.

    `weights`: query (D,); key (D, D); value, projection, wide, narrow and head, each (kernel, bias).
    """
    dim = tokens.shape[-1]
    x = _normalised(tokens)
    keys = (x @ weights["key"]).reshape(*x.shape[:2], heads, dim // heads)
    values = _dense(weights["value"], x).reshape(keys.shape)
    query = weights["query"].reshape(heads, dim // heads)
    logits = np.einsum("bnhd,hd->bhn", keys, query) / np.sqrt(dim // heads)
    pooled = np.einsum("bhn,bnhd->bhd", reference.softmax(logits), values).reshape(len(x), dim)
    y = _dense(weights["projection"], pooled)
    y = y + _dense(weights["narrow"], reference.gelu(_dense(weights["wide"], _normalised(y))))
    return _dense(weights["head"], _normalised(y))


def neighbour_votes(
    known: np.ndarray, numbers: list[int], query: np.ndarray, classes: int, count: int
) -> np.ndarray:
    """PROBE-3: features (n, D) with their classes, and one (D,) -> shares of the votes (K,)."""
    cosines = [other @ query / (np.linalg.norm(other) * np.linalg.norm(query)) for other in known]
    nearest = sorted(range(len(known)), key=lambda i: -cosines[i])[:count]
    votes = np.zeros(classes)
    for i in nearest:
        votes[numbers[i]] += np.exp(cosines[i] / 0.07)
    return votes / votes.sum()


def _dense(weights: tuple, x: np.ndarray) -> np.ndarray:
    kernel, bias = weights
    return x @ kernel + bias


def _normalised(x: np.ndarray) -> np.ndarray:
    return reference.layer_norm(x, 1.0, 0.0, 1e-6)
