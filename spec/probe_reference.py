"""The oracle for windows of long videos and probes of frozen features: FEATURE and PROBE clauses."""

from __future__ import annotations

import numpy as np

from spec import layers_reference as layers


def windows(count: int, frames: int, sampling_stride: int, stride: int) -> list[list[int]]:
    """Return the frame positions of each window in a video of `count` frames. FEATURE-1."""
    found = []
    start = 0
    while not found or start + (frames - 1) * sampling_stride + 1 <= count:
        found.append([min(start + i * sampling_stride, count - 1) for i in range(frames)])
        start += stride
    return found


def window_times(
    count: int, frames: int, sampling_stride: int, stride: int, rate: float
) -> list[tuple[float, float]]:
    """Return the seconds at which each window begins and ends, at `rate` frames per second. FEATURE-2."""
    return [
        (chosen[0] / rate, (chosen[-1] + 1) / rate)
        for chosen in windows(count, frames, sampling_stride, stride)
    ]


def standardised(training: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Standardise features (m, D) by those of the training views (n, D). PROBE-1."""
    return (features - training.mean(axis=0)) / training.std(axis=0)


def attentive_logits(weights: dict, tokens: np.ndarray, heads: int) -> np.ndarray:
    """Compute the logits (B, K) of an attentive probe from tokens (B, N, D). PROBE-2.

    Args:
        weights: Arrays query (D,) and key (D, D); (kernel, bias) for value, projection, wide,
            narrow and head.
        tokens: Output of the frozen encoder.
        heads: Number of attention heads.
    """
    dim = tokens.shape[-1]
    x = _normalised(tokens)
    keys = (x @ weights["key"]).reshape(*x.shape[:2], heads, dim // heads)
    values = _dense(weights["value"], x).reshape(keys.shape)
    query = weights["query"].reshape(heads, dim // heads)
    logits = np.einsum("bnhd,hd->bhn", keys, query) / np.sqrt(dim // heads)
    pooled = np.einsum("bhn,bnhd->bhd", layers.softmax(logits), values).reshape(len(x), dim)
    y = _dense(weights["projection"], pooled)
    y = y + _dense(weights["narrow"], layers.gelu(_dense(weights["wide"], _normalised(y))))
    return _dense(weights["head"], _normalised(y))


def neighbour_votes(
    known: np.ndarray, numbers: list[int], query: np.ndarray, classes: int, count: int
) -> np.ndarray:
    """Return the shares of the votes (K,) for one feature (D,), by k nearest neighbours. PROBE-3.

    Args:
        known: Features of the training videos (n, D).
        numbers: Their classes.
        query: Feature (D,) to classify.
        classes: Number of classes, K.
        count: Number of neighbours, k.
    """
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
    return layers.layer_norm(x, 1.0, 0.0, 1e-6)
