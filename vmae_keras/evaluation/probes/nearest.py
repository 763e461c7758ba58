"""Classes by the nearest neighbours among features whose classes are known."""

from collections.abc import Sequence

import numpy as np

TEMPERATURE = 0.07
_CHUNK = 1024  # queries at once: their similarities to all of the others are held in memory


def neighbour_votes(
    known: np.ndarray,
    numbers: Sequence[int],
    queries: np.ndarray,
    classes: int,
    counts: Sequence[int],
) -> np.ndarray:
    """(n, D) features of known classes and (m, D) others -> (len(counts), m, K) shares of the votes.

    The k nearest by cosine vote for their class, each with exp(cosine / .07), for each k of `counts`.

    Source: official DINO `eval_knn.py`; clause PROBE-3.

    Raises:
        ValueError: more neighbours than there are.
    """
    if not 1 <= min(counts) <= max(counts) <= len(known):
        raise ValueError(
            f"There are {len(known)} neighbours. Received: counts={list(counts)}. Ask for 1 to that."
        )
    known, queries = _unit(known), _unit(queries)
    ballots = np.eye(classes)[np.asarray(numbers)]  # (n, K)
    votes = np.empty((len(counts), len(queries), classes))
    for start in range(0, len(queries), _CHUNK):
        cosines = queries[start : start + _CHUNK] @ known.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : max(counts)]
        weights = np.exp(np.take_along_axis(cosines, nearest, axis=1) / TEMPERATURE)
        weighted = weights[..., None] * ballots[nearest]  # (queries, k, K)
        for place, count in enumerate(counts):
            total = weighted[:, :count].sum(axis=1)
            votes[place, start : start + _CHUNK] = total / total.sum(axis=1, keepdims=True)
    return votes


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float64)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
